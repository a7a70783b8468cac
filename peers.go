// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/state"
)

// peers is the knowledge of this node about the others: where they may be, which of them are members, and
// why it finds no leader. Any goroutine may use it.
type peers struct {
	cfg      *Config
	id       MemberID
	views    *views
	identity *identity

	addresses membership.Addresses
	attempts  membership.Attempts // while no leader is known
	losses    membership.Losses
	refusal   atomic.Pointer[error] // why another node and this one do not talk, the last time; nil if they do
}

func newPeers(n *Node) *peers {
	p := &peers{cfg: &n.cfg, id: n.id, views: n.views, identity: n.identity}
	for _, f := range n.cfg.Founders {
		p.addresses.Learn(uint64(n.cfg.memberID(f.Name)), f.Addr)
	}
	return p
}

// dialable returns the addresses at which another node may be, in random order: at some of them a call may
// wait in vain.
func (p *peers) dialable() []string {
	addrs := slices.Clone(p.cfg.Join)
	for _, f := range p.cfg.Founders {
		addrs = append(addrs, f.Addr)
	}
	seen := map[string]bool{"": true, p.cfg.Advertise: true}
	addrs = slices.DeleteFunc(append(addrs, p.addresses.All()...), func(addr string) bool {
		again := seen[addr]
		seen[addr] = true
		return again
	})
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs
}

// named returns an address, with the name of the node that should be there if that is known.
func (p *peers) named(addr string) string {
	for _, f := range p.cfg.Founders {
		if f.Addr == addr {
			return f.Name + " " + addr
		}
	}
	for _, m := range p.views.Summary().Members {
		if m.Addr == addr {
			return m.Name + " " + addr
		}
	}
	return addr
}

// judge rejects raft messages from and to nodes that are not members, and all raft messages while the data
// of this node is disputed. Calls check for themselves: a joining node is not a member yet, and a node that
// lost its data must get an answer that says so.
func (p *peers) judge(other rpc.Identity, lane byte) error {
	if lane == rpc.LaneCall {
		return nil
	}
	if p.identity.disputed.Load() {
		return rpc.ErrEarly
	}
	return p.standing(other)
}

// standing returns nil for a member, and otherwise why the other node is none, as far as this node knows.
func (p *peers) standing(other rpc.Identity) error {
	if p.losses.Has(other.Member, other.Incarnation) {
		return rpc.ErrForgotten
	}
	switch p.views.Summary().Judge(other.Member, other.Incarnation, other.Since, other.Runs) {
	case state.Forgotten:
		return rpc.ErrForgotten
	case state.Removed:
		return rpc.ErrRemoved
	case state.Stranger:
		return rpc.ErrStranger
	}
	return nil
}

// met notes that the cluster exists: a founder that is on record nowhere must not found it again. A node
// in memory does not note it, since it remembers the meeting no longer than the other node does.
func (p *peers) met(other rpc.Identity) {
	if other.Since > 0 && p.identity.Load().Since == 0 && !p.cfg.InMemory {
		p.identity.forgotten.Store(true)
	}
}

// lostData notes that a member's log ends at last, though the member had acknowledged more to this leader.
// This node rejects the member from now on. When the member asks to be on record again, every other node
// rejects it as well.
func (p *peers) lostData(member rpc.Identity, acknowledged, last uint64) {
	if p.losses.Add(member.Member, member.Incarnation) {
		p.cfg.Logger.Error("a member has lost entries that it had acknowledged", "member", MemberID(member.Member).String(),
			"acknowledged", acknowledged, "last", last)
	}
}

// forgetTroubles forgets all outcomes and refusals: a leader is known.
func (p *peers) forgetTroubles() {
	p.refusal.Store(nil)
	p.attempts.Forget()
}

// tried notes the outcome of an attempt to reach the node at an address.
func (p *peers) tried(addr string, err error) {
	var dial *rpc.DialError
	var number syscall.Errno
	refusal := p.refusalOf(err)
	switch {
	case refusal != nil:
		err = refusal
	case errors.Is(err, errNotLeader) && p.attempts.Outcome(addr) == membership.ErrFounded:
		return // ErrFounded says more
	case err == nil, errors.Is(err, errNotLeader):
		err = membership.ErrLeaderless
	case errors.Is(err, context.DeadlineExceeded):
		err = membership.ErrSilent
	case errors.As(err, &number):
		err = number // it says enough: the address is known
	case errors.As(err, &dial):
		err = dial.Err
	}
	p.attempts.Note(addr, err)
}

// refused keeps the reason why another node and this one do not talk, if err is one.
func (p *peers) refused(err error) {
	if err = p.refusalOf(err); err != nil {
		p.refusal.Store(&err)
	}
}

// refusalOf returns why another node and this one do not talk, as an exported error if there is one for the
// reason. It returns nil if err has another cause, as when the other node cannot be reached.
func (p *peers) refusalOf(err error) error {
	var mismatch *rpc.MismatchError
	var dial *rpc.DialError
	switch {
	case errors.Is(err, ErrClusterMismatch), errors.Is(err, ErrDirMismatch):
		return err
	case errors.As(err, &mismatch):
		text := ""
		if theirs, malformed := membership.ReadTerms(mismatch.Terms); malformed == nil && len(mismatch.Terms) > 0 {
			text = p.terms().Difference(theirs, mismatch.Other.Since > 0, p.identity.isNew())
		}
		if text = cmp.Or(text, p.estranged(mismatch)); text != "" {
			return &wordedError{ErrClusterMismatch, text, err}
		}
		return fmt.Errorf("%w: %w", ErrClusterMismatch, err)
	case errors.Is(err, rpc.ErrVersion):
		return formatError(err)
	case errors.Is(err, rpc.ErrClusterMismatch), errors.Is(err, rpc.ErrMemberMismatch), errors.Is(err, rpc.ErrCertificate):
		return fmt.Errorf("%w: %w", ErrClusterMismatch, err)
	case errors.Is(err, rpc.ErrForgotten) && errors.As(err, &dial):
		return &wordedError{ErrDirMismatch, fmt.Sprintf("%s: %v", p.named(dial.Peer.Addr), dial.Err), err}
	case errors.Is(err, rpc.ErrForgotten):
		return fmt.Errorf("%w: %w", ErrDirMismatch, err)
	case errors.Is(err, rpc.ErrTLS):
		return err
	}
	return nil
}

// inWords returns err as refusalOf does if that knows it, for the log.
func (p *peers) inWords(err error) error {
	if refusal := p.refusalOf(err); refusal != nil {
		return refusal
	}
	return err
}

// terms returns the terms of this node's cluster.
func (p *peers) terms() membership.Terms {
	t := membership.Terms{Cluster: p.cfg.Cluster}
	// The node knows the founders only if Config.Founders makes the ID of the cluster. It does not on a
	// later start, if it says where the founders are now; for a node that joined; and after a restore,
	// since that ID depends on the backup, too.
	if p.cfg.clusterID() == p.identity.Load().Cluster {
		for _, f := range p.cfg.Founders {
			t.Founders = append(t.Founders, membership.Founder(f))
		}
	}
	return t
}

// estranged says how a founder in Config.Founders can be of another cluster, if the founder did not send
// its terms: a caller does not. It returns "" for other nodes.
func (p *peers) estranged(m *rpc.MismatchError) string {
	for _, f := range p.cfg.Founders {
		switch {
		case uint64(p.cfg.memberID(f.Name)) != m.Other.Member:
		case m.Other.Cluster != m.Self.Cluster:
			return f.Name + " is of another cluster: it was given other Config.Founders, or another backup"
		default:
			return f.Name + " is of another cluster, that was founded with the same Config.Founders at another time"
		}
	}
	return ""
}

// withRefusal adds to err, the error of a call, that the leader and this node do not talk, if so. A node
// can follow a leader that it cannot call, as when the leader's certificate has another name.
func (p *peers) withRefusal(err error, leader MemberID) error {
	if refusal := p.refusal.Load(); concerns(refusal, leader) {
		return fmt.Errorf("%w (%w)", err, *refusal)
	}
	return err
}

// talks forgets the refusal if it concerns a member that has answered since.
func (p *peers) talks(to MemberID) {
	if refusal := p.refusal.Load(); concerns(refusal, to) {
		p.refusal.CompareAndSwap(refusal, nil)
	}
}

// concerns reports whether a refusal, if there is one, came of dialling a member.
func concerns(refusal *error, id MemberID) bool {
	var dial *rpc.DialError
	return refusal != nil && errors.As(*refusal, &dial) && MemberID(dial.Peer.ID) == id
}

// noLeader returns ErrNoLeader with the outcome of the last attempt at each address, and with the last
// refusal if that is none of these.
func (p *peers) noLeader() error {
	var places []membership.Place
	for _, addr := range p.dialable() {
		places = append(places, membership.Place{Addr: addr, Text: p.named(addr)})
	}
	slices.SortFunc(places, func(a, b membership.Place) int { return strings.Compare(a.Text, b.Text) })
	e := &noLeaderError{p.attempts.Summary(places)}
	if refusal := p.refusal.Load(); refusal != nil && !errors.Is(e, *refusal) && !p.triedAt(*refusal) && !e.covers(*refusal) {
		e.reasons = append(e.reasons, *refusal)
	}
	return e
}

// triedAt reports whether a refusal came of dialling an address, so that attempts has it.
func (p *peers) triedAt(refusal error) bool {
	var dial *rpc.DialError
	return errors.As(refusal, &dial) && p.refusalOf(p.attempts.Outcome(dial.Peer.Addr)) != nil
}

// A noLeaderError is ErrNoLeader, with the reasons why this node finds no leader.
type noLeaderError struct{ reasons []error }

func (e *noLeaderError) Error() string {
	text := ErrNoLeader.Error()
	for _, reason := range e.reasons {
		text += "; " + reason.Error()
	}
	return text
}

func (e *noLeaderError) Unwrap() []error { return append(e.reasons, ErrNoLeader) }

// covers reports whether one of the reasons is that the node of a refusal is of another cluster.
func (e *noLeaderError) covers(refusal error) bool {
	var refused, tried *rpc.MismatchError
	return errors.As(refusal, &refused) && slices.ContainsFunc(e.reasons, func(reason error) bool {
		return errors.As(reason, &tried) && tried.Other.Member == refused.Other.Member
	})
}

// A wordedError gives an error of a handshake, which has IDs, in names.
type wordedError struct {
	kind error // the exported error
	text string
	err  error // of the handshake
}

func (e *wordedError) Error() string   { return e.kind.Error() + ": " + e.text }
func (e *wordedError) Unwrap() []error { return []error{e.kind, e.err} }
