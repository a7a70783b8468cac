// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"time"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/state"
)

// retention keeps history within its bounds: on the leader, which proposes compactions for all.
type retention struct {
	n      *Node
	wake   chan struct{} // has a value when a bound is exceeded
	marks  []mark        // of the past Config.Retention.Age, oldest first
	every  time.Duration // between marks
	asking int64         // the revision of a compaction that was proposed and is not applied
}

// A mark is the revision at a time.
type mark struct {
	at  time.Time
	rev int64
}

// marksKept is how finely age is measured: history lives up to a tenth longer than asked.
const marksKept = 10

func newRetention(n *Node) *retention {
	r := &retention{n: n, wake: make(chan struct{}, 1), every: 24 * time.Hour}
	if n.cfg.Retention.Age > 0 {
		r.every = max(n.cfg.Retention.Age/marksKept, time.Millisecond)
	}
	return r
}

// applied checks the bounds after each batch, in the FSM's goroutine.
func (r *retention) applied(b appliedBatch) {
	if !b.lead.Self {
		return
	}
	v := b.view
	if bound := r.bound(v); v.KV.CompactTarget(bound.Revisions, bound.Bytes) > 0 {
		signal.Poke(r.wake)
	}
}

// bound returns the bounds that hold now. History has a part of what the keys' present state leaves of
// the quota: then deleting, of which all that is freed is history at first, makes room again. The rest
// is for what is written until a compaction is applied.
func (r *retention) bound(v *state.View) Retention {
	bound, quota := r.n.cfg.Retention, r.n.cfg.QuotaBytes
	if quota > 0 {
		left := max(quota-(v.KV.Bytes()-v.KV.Superseded()), 0)
		if most := left - left/10; bound.Bytes < 0 || most < bound.Bytes {
			bound.Bytes = most
		}
	}
	return bound
}

func (r *retention) run() {
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	var lost <-chan time.Time // tells when what was proposed seems lost: not appended, or with the lead
	for {
		select {
		case <-r.wake:
		case <-lost:
			r.asking = 0
		case now := <-tick.C:
			r.marks = append(r.marks, mark{now, r.n.views.Load().KV.Revision()})
		case <-r.n.life.Closing():
			return
		}
		if !r.n.lead.Now().Self {
			r.marks = nil
			continue
		}
		v := r.n.views.Load()
		if rev := r.target(v); rev > max(v.KV.CompactRevision(), r.asking) {
			r.asking = rev
			r.n.apply(command.Single(&command.Proposal{
				Command: command.Command{Compact: &command.Compact{Revision: rev}},
			}))
			lost = time.After(2 * r.n.cfg.ElectionTimeout)
		}
	}
}

// target returns the revision to compact to, or 0. A bound that is exceeded is brought a tenth
// below, so that compactions do not follow one another write by write.
func (r *retention) target(v *state.View) int64 {
	bound := r.bound(v)
	var rev int64
	if v.KV.CompactTarget(bound.Revisions, bound.Bytes) > 0 {
		rev = v.KV.CompactTarget(bound.Revisions-bound.Revisions/10, bound.Bytes-bound.Bytes/10)
	}
	if bound.Age > 0 {
		oldest := time.Now().Add(-bound.Age)
		for len(r.marks) > 0 && !r.marks[0].at.After(oldest) {
			rev = max(rev, r.marks[0].rev)
			r.marks = r.marks[1:]
		}
	}
	return rev
}
