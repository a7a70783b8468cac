// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/coterie-kv/coterie/internal/rpc"
)

// attempts has what came of the last try to reach each address while no leader was known, for errors to
// report. Its methods may be called concurrently.
type attempts struct {
	mu   sync.Mutex
	last map[string]error // by address; errLeaderless if a node answered
}

var (
	errUntried    = errors.New("no answer yet")
	errSilent     = errors.New("no answer in time")
	errLeaderless = errors.New("knows no leader")
	// errFounded: a founder that has no data waits for one that has.
	errFounded = errors.New("has data, and this node has none: it founds no cluster beside that one")
)

func (a *attempts) note(addr string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		a.last = map[string]error{}
	}
	a.last[addr] = err
}

func (a *attempts) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = nil
}

func (a *attempts) outcome(addr string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err, tried := a.last[addr]; tried {
		return err
	}
	return errUntried
}

// tried notes what came of a try to reach whatever node is at an address.
func (n *Node) tried(addr string, err error) {
	var dial *rpc.DialError
	var number syscall.Errno
	refusal := n.refusalOf(err)
	switch {
	case refusal != nil:
		err = refusal
	case errors.Is(err, errNotLeader) && n.attempts.outcome(addr) == errFounded:
		return // that says more
	case err == nil, errors.Is(err, errNotLeader):
		err = errLeaderless
	case errors.Is(err, context.DeadlineExceeded):
		err = errSilent
	case errors.As(err, &number):
		err = number // it says enough: the address is known
	case errors.As(err, &dial):
		err = dial.Err
	}
	n.attempts.note(addr, err)
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
	e := &noLeaderError{}
	doors := n.doors()
	slices.SortFunc(doors, func(a, b string) int { return strings.Compare(n.named(a), n.named(b)) })
	for len(doors) > 0 { // those with one reason at a time
		reason, rest := n.attempts.outcome(doors[0]), []string(nil)
		var same []string
		for _, door := range doors {
			if n.attempts.outcome(door).Error() == reason.Error() {
				same = append(same, n.named(door))
			} else {
				rest = append(rest, door)
			}
		}
		e.reasons = append(e.reasons, fmt.Errorf("%s: %w", strings.Join(same, ", "), reason))
		if len(rest) == len(doors) { // it has changed since it was read
			break
		}
		doors = rest
	}
	if refusal := n.refusal.Load(); refusal != nil && !errors.Is(e, *refusal) && !n.triedAt(*refusal) && !e.tells(*refusal) {
		e.reasons = append(e.reasons, *refusal)
	}
	return e
}

// triedAt reports whether a refusal came of dialling an address, so that attempts has it.
func (n *Node) triedAt(refusal error) bool {
	var dial *rpc.DialError
	return errors.As(refusal, &dial) && n.refusalOf(n.attempts.outcome(dial.Peer.Addr)) != nil
}

// named returns an address, with the name of the node that should be there if that is known.
func (n *Node) named(addr string) string {
	for _, p := range n.cfg.Founders {
		if p.Addr == addr {
			return p.Name + " " + addr
		}
	}
	for _, m := range n.view().Members {
		if m.Addr == addr {
			return m.Name + " " + addr
		}
	}
	return addr
}
