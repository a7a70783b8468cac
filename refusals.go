// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/internal/rpc"
)

// refusals says which refused connections the log is to tell of: nodes that do not get on try
// again many times a second, and strangers as they please. It says the same of raft's warnings, where
// what is called a host here is a message and whom that is about.
type refusals struct {
	mu    sync.Mutex
	since time.Time // when told and unsaid began
	told  map[string]bool
	// unsaid is how many were not told of.
	unsaid int
}

const (
	refusalInterval = 10 * time.Second // in which each host is told of once
	refusalHosts    = 16               // how many hosts are told of in that time
)

// due reports whether a refusal that concerns a host is to be told of, and how many were not since
// the last that was.
func (r *refusals) due(host string) (unsaid int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.told == nil || now.Sub(r.since) >= refusalInterval {
		r.since, r.told = now, map[string]bool{}
	}
	if r.told[host] || len(r.told) == refusalHosts {
		r.unsaid++
		return 0, false
	}
	r.told[host] = true
	unsaid, r.unsaid = r.unsaid, 0
	return unsaid, true
}

// refusedHere hears of callers that this node refused, or that refused it.
func (n *Node) refusedHere(r *refusals) func(remote net.Addr, err error) {
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
		if unsaid, ok := r.due(host); ok {
			n.cfg.Logger.Warn("connection refused", "remote", remote.String(), "err", err, "unsaid", unsaid)
		}
	}
}

// refusedAt hears of members that refused this node when it dialled them, or that it refused.
//
// The last such reason stands until a leader is known, or that member answers a call.
func (n *Node) refusedAt(r *refusals) func(*rpc.DialError) {
	return func(err *rpc.DialError) {
		n.count(MetricConnectionsRefused, 1)
		n.refused(err)
		if unsaid, ok := r.due(err.Peer.Addr); ok {
			n.cfg.Logger.Warn("connection failed", "remote", err.Peer.Addr, "err", err, "unsaid", unsaid)
		}
	}
}

// refused keeps the reason why another node and this one do not talk, for Ready to tell.
func (n *Node) refused(err error) {
	switch {
	case errors.Is(err, rpc.ErrClusterMismatch), errors.Is(err, rpc.ErrMemberMismatch), errors.Is(err, rpc.ErrVersion):
		err = fmt.Errorf("%w: %w", ErrClusterMismatch, err)
	case errors.Is(err, rpc.ErrForgotten):
		err = fmt.Errorf("%w: %w", ErrDataLost, err)
	case !errors.Is(err, rpc.ErrTLS):
		return
	}
	n.refusal.Store(&err)
}

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
