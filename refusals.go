// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"cmp"
	"errors"
	"fmt"
	"net"

	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/rpc"
)

// refusedHere hears of callers that this node refused, or that refused it.
func (n *Node) refusedHere(t *throttle) func(remote net.Addr, err error) {
	return func(remote net.Addr, err error) {
		n.count(MetricConnectionsRefused, 1)
		// Any stranger can fail at TLS. A member that does is dialled as well, and Ready tells what
		// came of that.
		if !errors.Is(err, rpc.ErrTLS) {
			n.refused(err)
		}
		host, _, splitErr := net.SplitHostPort(remote.String())
		if splitErr != nil {
			host = remote.String()
		}
		if unsaid, ok := t.due(host); ok {
			n.cfg.Logger.Warn("connection refused", "remote", remote.String(), "err", n.inWords(err), "unsaid", unsaid)
		}
	}
}

// refusedMessage hears of each of raft's messages that this node refused.
func (n *Node) refusedMessage(t *throttle) func(from rpc.Identity, remote net.Addr, err error) {
	return func(from rpc.Identity, remote net.Addr, err error) {
		n.count(MetricConnectionsRefused, 1)
		member := MemberID(from.Member).String()
		if unsaid, ok := t.due(member); ok {
			n.cfg.Logger.Warn("message refused", "member", member, "remote", remote.String(), "err", err, "unsaid", unsaid)
		}
	}
}

// refusedAt hears of members that refused this node when it dialled them, or that it refused.
//
// The last such reason stands until a leader is known, or that member answers a call.
func (n *Node) refusedAt(t *throttle) func(*rpc.DialError) {
	return func(err *rpc.DialError) {
		n.count(MetricConnectionsRefused, 1)
		n.refused(err)
		if unsaid, ok := t.due(err.Peer.Addr); ok {
			n.cfg.Logger.Warn("connection failed", "remote", err.Peer.Addr, "err", n.inWords(err), "unsaid", unsaid)
		}
	}
}

// refused keeps the reason why another node and this one do not talk, for Ready to tell.
func (n *Node) refused(err error) {
	if err = n.refusalOf(err); err != nil {
		n.refusal.Store(&err)
	}
}

// inWords returns err as refusalOf does if that knows it, for the log.
func (n *Node) inWords(err error) error {
	if refusal := n.refusalOf(err); refusal != nil {
		return refusal
	}
	return err
}

// refusalOf returns why another node and this one do not talk: an exported error if there is one for it.
// It returns nil if err has another reason, as when the other node cannot be reached.
func (n *Node) refusalOf(err error) error {
	var mismatch *rpc.MismatchError
	var dial *rpc.DialError
	switch {
	case errors.Is(err, ErrClusterMismatch), errors.Is(err, ErrDirMismatch):
		return err
	case errors.As(err, &mismatch):
		text := ""
		if theirs, malformed := membership.ReadTerms(mismatch.Terms); malformed == nil && len(mismatch.Terms) > 0 {
			text = n.terms().Difference(theirs, mismatch.Other.Since > 0, n.isNew())
		}
		if text = cmp.Or(text, n.estranged(mismatch)); text != "" {
			return &wordedError{ErrClusterMismatch, text, err}
		}
		return fmt.Errorf("%w: %w", ErrClusterMismatch, err)
	case errors.Is(err, rpc.ErrVersion):
		return formatError(err)
	case errors.Is(err, rpc.ErrClusterMismatch), errors.Is(err, rpc.ErrMemberMismatch), errors.Is(err, rpc.ErrCertificate):
		return fmt.Errorf("%w: %w", ErrClusterMismatch, err)
	case errors.Is(err, rpc.ErrForgotten) && errors.As(err, &dial):
		return &wordedError{ErrDirMismatch, fmt.Sprintf("%s: %v", n.named(dial.Peer.Addr), dial.Err), err}
	case errors.Is(err, rpc.ErrForgotten):
		return fmt.Errorf("%w: %w", ErrDirMismatch, err)
	case errors.Is(err, rpc.ErrTLS):
		return err
	}
	return nil
}

// terms returns the terms of this node's cluster.
func (n *Node) terms() membership.Terms {
	t := membership.Terms{Cluster: n.cfg.Cluster}
	// The node knows the founders only if Config.Founders makes the ID of the cluster. It does not on a
	// later start, if it says where the founders are now; for a node that joined; and after a restore,
	// since that ID depends on the backup, too.
	if n.cfg.clusterID() == n.identity.Load().Cluster {
		for _, f := range n.cfg.Founders {
			t.Founders = append(t.Founders, membership.Founder(f))
		}
	}
	return t
}

// estranged says how a founder in Config.Founders can be of another cluster, if the founder did not send
// its terms: a caller does not. It returns "" for other nodes.
func (n *Node) estranged(m *rpc.MismatchError) string {
	for _, f := range n.cfg.Founders {
		switch {
		case uint64(n.cfg.memberID(f.Name)) != m.Other.Member:
		case m.Other.Cluster != m.Self.Cluster:
			return f.Name + " is of another cluster: it was given other Config.Founders, or another backup"
		default:
			return f.Name + " is of another cluster, that was founded with the same Config.Founders at another time"
		}
	}
	return ""
}

// A wordedError says in names what the handshake said in IDs.
type wordedError struct {
	kind error // the exported error
	text string
	err  error // of the handshake
}

func (e *wordedError) Error() string   { return e.kind.Error() + ": " + e.text }
func (e *wordedError) Unwrap() []error { return []error{e.kind, e.err} }

// withRefusal adds to err, with which a call ended, that the leader and this node do not talk, if
// that is so: one can be followed and not be called, as when its certificate has another name.
func (n *Node) withRefusal(err error, leader MemberID) error {
	if refusal := n.refusal.Load(); concerns(refusal, leader) {
		return fmt.Errorf("%w (%w)", err, *refusal)
	}
	return err
}

// talks forgets a refusal that concerned a member that has answered since.
func (n *Node) talks(to MemberID) {
	if refusal := n.refusal.Load(); concerns(refusal, to) {
		n.refusal.CompareAndSwap(refusal, nil)
	}
}

// concerns reports whether a refusal, if there is one, came of dialling a member.
func concerns(refusal *error, id MemberID) bool {
	var dial *rpc.DialError
	return refusal != nil && errors.As(*refusal, &dial) && MemberID(dial.Peer.ID) == id
}
