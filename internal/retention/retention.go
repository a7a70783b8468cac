// SPDX-License-Identifier: Apache-2.0

// Package retention keeps the history of the store within its bounds. Only the leader of a cluster does so:
// it proposes compactions for all nodes.
package retention

import (
	"time"

	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/signal"
)

// A Host is the node of a Retention.
type Host interface {
	// Leader returns the leader that is known, and whether it is this node.
	Leader() (leader, term uint64, self bool)
	// Store returns what this node has applied.
	Store() *mvcc.View
	// Compact proposes to compact to a revision. The proposal may be dropped.
	Compact(rev int64)
	// Closing returns a channel that is closed when Run has to return.
	Closing() <-chan struct{}
}

// Bounds are those of history.
type Bounds struct {
	Age       time.Duration // 0: none
	Revisions int64         // negative: none
	Bytes     int64         // negative: none
	Quota     int64         // of the store, history included; 0: none
}

// A Retention proposes compactions. Its fields but wake belong to the goroutine of Run.
type Retention struct {
	host    Host
	bounds  Bounds
	wake    chan struct{} // has a value when a bound is exceeded
	marks   []mark        // of the past Bounds.Age, and the newest one before, oldest first
	every   time.Duration // between marks
	retry   time.Duration // after which a proposal without an outcome is repeated
	pending int64         // the revision of a compaction that was proposed and is not applied
}

// A mark is the revision at a time.
type mark struct {
	at  time.Time
	rev int64
}

// marksKept is how finely age is measured: history lives up to a tenth longer than asked.
const marksKept = 10

// New returns a Retention. It repeats a proposal if it does not learn the outcome within retry.
func New(host Host, bounds Bounds, retry time.Duration) *Retention {
	r := &Retention{host: host, bounds: bounds, wake: make(chan struct{}, 1), every: 24 * time.Hour, retry: retry}
	if bounds.Age > 0 {
		r.every = max(bounds.Age/marksKept, time.Millisecond)
	}
	return r
}

// Applied checks the bounds after each batch of the log that the leader applies.
func (r *Retention) Applied(v *mvcc.View) {
	if revisions, bytes := r.limits(v); v.CompactTarget(revisions, bytes) > 0 {
		signal.Poke(r.wake)
	}
}

// limits returns the bounds that hold now. Under a quota, history has a part of what the present state of the
// keys leaves of it. So deleting, which at first turns everything it frees into history, makes room again.
// The rest is for writes until a compaction is applied.
func (r *Retention) limits(v *mvcc.View) (revisions, bytes int64) {
	revisions, bytes = r.bounds.Revisions, r.bounds.Bytes
	if quota := r.bounds.Quota; quota > 0 {
		left := max(quota-(v.Bytes()-v.Superseded()), 0)
		if most := left - left/10; bytes < 0 || most < bytes {
			bytes = most
		}
	}
	return revisions, bytes
}

// Run proposes compactions until the node closes.
func (r *Retention) Run() {
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	var lost <-chan time.Time // fires when a proposal seems lost: it was not appended, or lost with the lead
	for {
		select {
		case <-r.wake:
		case <-lost:
			r.pending = 0
		case now := <-tick.C:
			r.marks = append(r.marks, mark{now, r.host.Store().Revision()})
		case <-r.host.Closing():
			return
		}
		if _, _, self := r.host.Leader(); !self {
			r.marks = nil
			continue
		}
		v := r.host.Store()
		if rev := r.target(v); rev > max(v.CompactRevision(), r.pending) {
			r.pending = rev
			r.host.Compact(rev)
			lost = time.After(r.retry)
		}
	}
}

// target returns the revision to compact to, or 0. A bound that is exceeded is brought a tenth below it, so
// that not every write causes a compaction.
func (r *Retention) target(v *mvcc.View) int64 {
	revisions, bytes := r.limits(v)
	var rev int64
	if v.CompactTarget(revisions, bytes) > 0 {
		rev = v.CompactTarget(revisions-revisions/10, bytes-bytes/10)
	}
	if r.bounds.Age > 0 {
		oldest := time.Now().Add(-r.bounds.Age)
		// The newest mark of that age stays, in case the proposal is dropped.
		for len(r.marks) > 1 && !r.marks[1].at.After(oldest) {
			r.marks = r.marks[1:]
		}
		if len(r.marks) > 0 && !r.marks[0].at.After(oldest) {
			rev = max(rev, r.marks[0].rev)
		}
	}
	return rev
}
