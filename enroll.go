// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coterie-kv/coterie/internal/raftlog"
)

// enroll brings this node into the cluster and keeps it in touch: it has the cluster put it on record,
// with its data and its address, and looks for the others while it knows no leader.
func (n *Node) enroll() {
	told := "" // why it is not let in
	for {
		changed := n.lead.Changed()
		wait := n.cfg.ElectionTimeout
		if !n.enrolled() {
			if err := n.askIn(); err != nil {
				if n.heardNo(err) && err.Error() != told {
					told = err.Error()
					n.cfg.Logger.Warn("not let in", "err", err)
				}
				wait = n.retryAfter()
				if n.refusal.Load() != nil {
					wait = n.cfg.ElectionTimeout / 4 // for an operator to help
				}
			}
		}
		retry := time.NewTimer(wait)
		select {
		case <-changed:
		case <-retry.C:
			if n.lead.Now().Leader == 0 {
				n.lookAround()
			}
		case <-n.life.Closing():
			retry.Stop()
			return
		}
		retry.Stop()
	}
}

// enrolled reports whether the cluster is known to have this node on record as it is. A node that
// hears of no leader asks again: it may have been removed.
func (n *Node) enrolled() bool {
	id := n.identity.Load()
	if n.lead.Now().Leader == 0 || id.Since == 0 {
		return false
	}
	m, ok := n.views.Load().Members.Get(uint64(n.id))
	return ok && m.Incarnation == id.Incarnation && m.Run == id.Runs.Now() && m.Addr == n.cfg.Advertise && m.Name == n.cfg.Name
}

// askIn asks the leader, or whoever can be reached, to have this node put on record.
func (n *Node) askIn() error {
	id := n.identity.Load()
	since := id.Since
	if n.belonged() {
		since = max(since, raftlog.FoundingIndex) // if it is no member, it was removed
	}
	c := &change{
		kind: changeEnroll, id: n.id, name: n.cfg.Name, addr: n.cfg.Advertise, voter: !n.cfg.NonVoter,
		cluster: n.cfg.Cluster, incarnation: id.Incarnation, since: since, forgetful: n.cfg.InMemory, runs: id.Runs,
	}
	ctx, cancel := context.WithTimeout(n.life.Context(), 2*n.cfg.ElectionTimeout)
	defer cancel()
	if n.lead.Now().Leader != 0 {
		a, err := n.askToChange(ctx, c)
		switch {
		case err == nil:
			return n.confirm(a)
		case ctx.Err() != nil:
			return ErrNoLeader // and no verdict, though err may tell who does not talk to whom
		}
		return err
	}
	err := ErrNoLeader
	for _, door := range n.doors() {
		var a admission
		if a, err = n.callJoin(ctx, door, c); err == nil {
			return n.confirm(a)
		}
		if ctx.Err() == nil && final(err) {
			return err
		}
	}
	return err
}

// belonged reports whether this node surely was a member, in this incarnation: on record, or as a founder
// that took part in the founding.
func (n *Node) belonged() bool { return n.identity.Load().Since > 0 || !n.raft().founding() }

// heardNo reports whether err says that this node is not let in, and notes it. Where it was a member
// and is none any more, it stops.
func (n *Node) heardNo(err error) bool {
	lost := errors.Is(err, ErrDirMismatch) || errors.Is(err, ErrDuplicateNode)
	if !lost && !errors.Is(err, ErrMemberNotFound) && !errors.Is(err, ErrClusterMismatch) {
		return false
	}
	n.refusal.Store(&err)
	if n.belonged() {
		if errors.Is(err, ErrDirMismatch) {
			n.dispute()
		}
		n.gone(err)
		return false
	}
	if lost {
		n.forgotten.Store(true)
	}
	return true
}

// doors are the addresses at which somebody may let this node in, in random order: at some of them it
// may be kept waiting in vain.
func (n *Node) doors() []string {
	doors := slices.Clone(n.cfg.Join)
	for _, p := range n.cfg.Founders {
		doors = append(doors, p.Addr)
	}
	seen := map[string]bool{"": true, n.cfg.Advertise: true}
	doors = slices.DeleteFunc(append(doors, n.addresses.All()...), func(addr string) bool {
		dup := seen[addr]
		seen[addr] = true
		return dup
	})
	rand.Shuffle(len(doors), func(i, j int) { doors[i], doors[j] = doors[j], doors[i] })
	return doors
}

// lookAround tells whoever can be reached where this node is, and learns who is there.
func (n *Node) lookAround() {
	for _, door := range n.doors() {
		n.life.Go(func() {
			ctx, cancel := context.WithTimeout(n.life.Context(), n.cfg.ElectionTimeout)
			defer cancel()
			n.ping(ctx, 0, door)
		})
	}
}
