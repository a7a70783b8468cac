// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"math/rand/v2"
	"time"

	"github.com/coterie-kv/coterie/internal/command"
)

// A firstCommand is what a term that this node leads begins with. The goroutine that follows
// leadership has it.
type firstCommand struct {
	n    *Node
	term uint64
	seen time.Time // when it was last sent, or found to be in the log
}

// see sends the command of a term, unless it was sent a moment ago or the log has one that waits to
// be applied: behind a disk that hangs they would gather. Raft may drop it, as while it hands
// leadership over, and to repeat it does no harm. The deadlines of leases tell when it is needed no
// more, and not the view: another command of the term may have been applied before this node knew
// of the term. It goes ahead of what has no room: elections leave entries that are never seen
// applied.
//
// It returns when to see again.
func (f *firstCommand) see(term uint64) <-chan time.Time {
	timeout := f.n.cfg.ElectionTimeout
	if left := timeout - time.Since(f.seen); f.term == term && left > 0 {
		return time.After(left)
	}
	if c := f.n.raft(); f.term != term || !c.commands(term, f.n.view().Index) {
		first := command.Command{Term: true, Epoch: max(rand.Uint64(), 1)} // the cluster's first one names it
		c.append(command.Single(&command.Proposal{Command: first}))
	}
	f.term, f.seen = term, time.Now()
	return time.After(timeout)
}
