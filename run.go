// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/run"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A directory numbers its runs: each Open draws a number, and writes it behind those before, back to the
// last that the cluster had on record when the directory was last in use. So a copy of a directory does
// not know of the runs that the directory has had since. The number goes on record with the incarnation,
// and every node judges its peers by it: a node that does not know the run on record was put back, or
// goes on elsewhere. No node waits for its run to be on record before it votes or acknowledges: the
// record needs a leader, and a leader needs votes.

// newDraw draws what tells a run from those of copies of its directory.
func newDraw() uint64 { return max(rand.Uint64(), 1) }

// beginRun begins a run of a directory that has had others, durably. A shortage of room on the disk is
// no reason not to start: then the run goes by the number of the one before.
func (n *Node) beginRun() error {
	id := n.identity.Load()
	var recorded run.Number
	if m, ok := n.views.Load().Members.Get(uint64(n.id)); ok && m.Incarnation == id.Incarnation {
		recorded = m.Run
	}
	next := id.Runs.Next(recorded, newDraw())
	if next == id.Runs {
		return nil
	}
	err := n.identify(func(id *raftlog.Identity) { id.Runs = next })
	if vfs.Short(err) {
		return nil
	}
	return logError(err)
}

// introduce tells the other members of this run before the node votes. Any of them may know that the
// directory is an older copy, or that another node runs on a copy of it, and a candidate may be the one
// that does not. The wait is short: a member that cannot be reached has no say.
func (n *Node) introduce() {
	defer n.confirmed.Broadcast()
	defer n.introduced.Store(true)
	if !n.belonged() || n.cfg.Addr == "" {
		return
	}
	ctx, cancel := context.WithTimeout(n.life.Context(), n.cfg.ElectionTimeout/2)
	defer cancel()
	doors := append(n.doors(), n.cfg.Advertise)
	if m, ok := n.views.Load().Members.Get(uint64(n.id)); ok && m.Addr != n.cfg.Advertise {
		doors = append(doors, m.Addr)
	}
	var asked sync.WaitGroup
	for _, addr := range doors {
		asked.Go(func() {
			// Where this node is it does not say yet: another may run on a copy of the directory.
			if p, err := n.ask(ctx, 0, addr, ""); err == nil {
				n.heed(p, addr)
			}
		})
	}
	asked.Wait()
}

// heed draws the consequences of what a node at an address has answered. Of two nodes with copies of
// one directory the one stops that has had more runs: it came later.
func (n *Node) heed(p pong, addr string) {
	id := n.identity.Load()
	switch now := id.Runs.Now(); {
	case p.member != uint64(n.id):
		n.addresses.Learn(p.member, addr)
	case p.incarnation == id.Incarnation && p.run != now && p.run.Count <= now.Count:
		n.gone(errTwin(n.cfg.Name))
	}
	if p.forgotten && n.belonged() {
		err := errCopied(n.cfg.Name)
		n.refusal.Store(&err)
		n.dispute()
	}
}

// dispute notes that this node has lost data, as far as another knows, durably: the node may be started
// again when no member can be reached that knows. It takes no part in raft until a leader decides.
func (n *Node) dispute() {
	n.disputed.Store(true)
	if n.identity.Load().Disputed {
		return
	}
	if err := n.identify(func(id *raftlog.Identity) { id.Disputed = true }); err != nil {
		n.cfg.Logger.Warn("that this node may have lost data is not noted in its directory", "err", err)
	}
}

func errTwin(name string) error {
	return fmt.Errorf("%w: %s runs already; stop one of the two, and give a second node a name and an empty directory", ErrDuplicateNode, name)
}

func errCopied(name string) error {
	return fmt.Errorf("%w: the directory of %s was put back from an older copy, or a copy of it has been in use since; "+
		"remove the member, and with an empty directory it can join anew", ErrDirMismatch, name)
}

// twin returns ErrDuplicateNode if a node that wants a run of its on record is not the only one with
// its directory: another answers, now that this one runs. The node that was there first goes on.
func (r *roster) twin(ctx context.Context, c *change) error {
	n := r.n
	m, ok := n.views.Load().Members.Get(uint64(c.id))
	switch {
	case c.kind != changeEnroll || !ok || m.Incarnation != c.incarnation || m.Run == c.runs.Now():
		return nil
	case c.id == n.id && c.incarnation == n.identity.Load().Incarnation && c.runs != n.identity.Load().Runs:
		return errTwin(c.name)
	case c.id == n.id || n.raft().net.Silent(serverID(c.id), n.cfg.ElectionTimeout):
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ElectionTimeout/2)
	defer cancel()
	known := n.addresses.Of(uint64(c.id))
	answers := make(chan bool, len(known))
	for _, addr := range known {
		n.life.Go(func() {
			p, err := n.ask(ctx, c.id, addr, "")
			answers <- err == nil && p.incarnation == c.incarnation && p.run != c.runs.Now()
		})
	}
	for range known {
		select {
		case another := <-answers:
			if another {
				return errTwin(c.name)
			}
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// lostData notes that a member's log ends at last, and the member had acknowledged more to this leader.
// This node rejects it from now on. When it asks to be on record again, every other node does as well.
func (n *Node) lostData(peer rpc.Identity, acknowledged, last uint64) {
	if n.losses.Add(peer.Member, peer.Incarnation) {
		n.cfg.Logger.Error("a member has lost what it had acknowledged", "member", MemberID(peer.Member).String(),
			"acknowledged", acknowledged, "last", last)
	}
}
