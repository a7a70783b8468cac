// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/rpc"
)

// tried notes what came of a try to reach whatever node is at an address.
func (n *Node) tried(addr string, err error) {
	var dial *rpc.DialError
	var number syscall.Errno
	refusal := n.refusalOf(err)
	switch {
	case refusal != nil:
		err = refusal
	case errors.Is(err, errNotLeader) && n.attempts.Outcome(addr) == membership.ErrFounded:
		return // that says more
	case err == nil, errors.Is(err, errNotLeader):
		err = membership.ErrLeaderless
	case errors.Is(err, context.DeadlineExceeded):
		err = membership.ErrSilent
	case errors.As(err, &number):
		err = number // it says enough: the address is known
	case errors.As(err, &dial):
		err = dial.Err
	}
	n.attempts.Note(addr, err)
}

// A noLeaderError is ErrNoLeader, and why this node finds none.
type noLeaderError struct{ reasons []error }

func (e *noLeaderError) Error() string {
	text := ErrNoLeader.Error()
	for _, reason := range e.reasons {
		text += "; " + reason.Error()
	}
	return text
}

func (e *noLeaderError) Unwrap() []error { return append(e.reasons, ErrNoLeader) }

// tells reports whether a reason is that a node is of another cluster, as a refusal says of the same node.
func (e *noLeaderError) tells(refusal error) bool {
	var refused, tried *rpc.MismatchError
	return errors.As(refusal, &refused) && slices.ContainsFunc(e.reasons, func(reason error) bool {
		return errors.As(reason, &tried) && tried.Other.Member == refused.Other.Member
	})
}

// noLeader returns ErrNoLeader with what came of the last try at each of the other nodes, and with the
// last refusal if that is none of these.
func (n *Node) noLeader() error {
	var places []membership.Place
	for _, door := range n.doors() {
		places = append(places, membership.Place{Addr: door, Text: n.named(door)})
	}
	slices.SortFunc(places, func(a, b membership.Place) int { return strings.Compare(a.Text, b.Text) })
	e := &noLeaderError{n.attempts.Summary(places)}
	if refusal := n.refusal.Load(); refusal != nil && !errors.Is(e, *refusal) && !n.triedAt(*refusal) && !e.tells(*refusal) {
		e.reasons = append(e.reasons, *refusal)
	}
	return e
}

// triedAt reports whether a refusal came of dialling an address, so that attempts has it.
func (n *Node) triedAt(refusal error) bool {
	var dial *rpc.DialError
	return errors.As(refusal, &dial) && n.refusalOf(n.attempts.Outcome(dial.Peer.Addr)) != nil
}

// named returns an address, with the name of the node that should be there if that is known.
func (n *Node) named(addr string) string {
	for _, p := range n.cfg.Founders {
		if p.Addr == addr {
			return p.Name + " " + addr
		}
	}
	for _, m := range n.views.Load().Members {
		if m.Addr == addr {
			return m.Name + " " + addr
		}
	}
	return addr
}
