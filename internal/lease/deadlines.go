// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"container/heap"
	"iter"
	"time"
)

// Deadlines tracks when leases end, by a leader's clock. After a lease's expiry has been proposed, the
// lease is held until the outcome: it is neither renewed nor proposed again, unless the proposal seems
// lost. If a renewal were acknowledged in between, the lease would end although it had just been renewed.
// Use NewDeadlines, not the zero value. The caller serializes calls, with times that do not decrease. No method blocks.
type Deadlines struct {
	leases map[int64]*deadline
	queue  deadlines
}

type deadline struct {
	Lease
	at     time.Time
	queued time.Time // by which the queue is ordered: at, or an earlier deadline if the lease was renewed
	place  int       // index in the queue
	held   bool      // its expiry was proposed, and the outcome is not known
}

// NewDeadlines returns an empty Deadlines.
func NewDeadlines() *Deadlines { return &Deadlines{leases: map[int64]*deadline{}} }

// Reset replaces all leases. Each gets its full TTL from now.
func (d *Deadlines) Reset(leases iter.Seq[Lease], now time.Time) {
	d.Clear()
	for l := range leases {
		d.Grant(l, now)
	}
}

// Clear removes every lease.
func (d *Deadlines) Clear() {
	clear(d.leases)
	d.queue = nil
}

// Grant adds a lease, with its full TTL from now.
func (d *Deadlines) Grant(l Lease, now time.Time) {
	if _, ok := d.leases[l.ID]; ok {
		return
	}
	e := &deadline{Lease: l, at: now.Add(l.TTL)}
	e.queued = e.at
	d.leases[l.ID] = e
	heap.Push(&d.queue, e)
}

// Revoke removes a lease that has ended.
func (d *Deadlines) Revoke(id int64) {
	if l, ok := d.leases[id]; ok {
		delete(d.leases, id)
		heap.Remove(&d.queue, l.place)
	}
}

// Renew gives a lease its full TTL from now. If its expiry was proposed, Renew does nothing and ending is
// true: call it again until the outcome is known. ok is false for an unknown lease.
//
// Renew does not move the lease in the queue. Most leases are renewed several times before their first deadline
// passes, and move once, when it does.
func (d *Deadlines) Renew(id int64, now time.Time) (ttl time.Duration, ending, ok bool) {
	l, ok := d.leases[id]
	if !ok {
		return 0, false, false
	}
	if l.held {
		return 0, true, true
	}
	l.at = now.Add(l.TTL)
	return l.TTL, false, true
}

// Remaining returns a lease's TTL and the remaining time, which is at least zero.
func (d *Deadlines) Remaining(id int64, now time.Time) (ttl, left time.Duration, ok bool) {
	l, ok := d.leases[id]
	if !ok {
		return 0, 0, false
	}
	if !l.held {
		left = max(l.at.Sub(now), 0)
	}
	return l.TTL, left, true
}

// Expire returns up to limit expired leases and holds them. The caller proposes their expiry. Leases
// without an outcome after retry are returned again.
func (d *Deadlines) Expire(now time.Time, limit int, retry time.Duration) (ids []int64) {
	for len(ids) < limit {
		l := d.first()
		if l == nil || l.at.After(now) {
			break
		}
		l.held = true
		// Not even with a retry of 0 may this loop find the lease again.
		l.at = now.Add(max(retry, 1))
		ids = append(ids, l.ID)
	}
	return ids
}

// maxMoves bounds the leases that one call moves in the queue: all leases of a new leader may have the same deadline.
const maxMoves = 1000

// first returns the lease that is first in the queue, or nil. Before that it moves leases that were renewed since they were
// queued to the places of their deadlines. After maxMoves the first lease may be one that has to move.
func (d *Deadlines) first() *deadline {
	for range maxMoves {
		if len(d.queue) == 0 {
			return nil
		}
		l := d.queue[0]
		if l.at.Equal(l.queued) {
			return l
		}
		l.queued = l.at
		heap.Fix(&d.queue, 0)
	}
	return d.queue[0]
}

// Next returns the time when Expire will next return something, or a time before that at which Expire is to be called
// all the same. It returns false if there are no leases.
func (d *Deadlines) Next() (time.Time, bool) {
	l := d.first()
	if l == nil {
		return time.Time{}, false
	}
	return l.queued, true
}

// Len returns the number of leases.
func (d *Deadlines) Len() int { return len(d.leases) }

// deadlines is a heap in the order of queued, earliest first; among equal ones the lowest ID comes first.
type deadlines []*deadline

func (q deadlines) Len() int { return len(q) }

func (q deadlines) Less(i, j int) bool {
	if c := q[i].queued.Compare(q[j].queued); c != 0 {
		return c < 0
	}
	return q[i].ID < q[j].ID
}

func (q deadlines) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements heap.Interface.
func (q *deadlines) Push(x any) {
	l := x.(*deadline)
	l.place = len(*q)
	*q = append(*q, l)
}

// Pop implements heap.Interface.
func (q *deadlines) Pop() any {
	rest := len(*q) - 1
	last := (*q)[rest]
	(*q)[rest] = nil // otherwise the slice would keep it
	*q = (*q)[:rest]
	return last
}
