// SPDX-License-Identifier: Apache-2.0

package watchhub

import (
	"sync"

	"github.com/coterie-kv/coterie/internal/signal"
)

// A Queue holds the watchers of one goroutine that were woken. So the goroutine waits for one channel,
// however many watchers it has.
type Queue struct {
	wake chan struct{}

	mu    sync.Mutex // guards the fields below
	woken []*Watcher
	first []*Watcher // the watchers that were woken before those in woken
	next  int        // the index in first of the next watcher
}

// NewQueue returns an empty queue.
func NewQueue() *Queue { return &Queue{wake: make(chan struct{}, 1)} }

// Wake returns a channel that receives a value when Pop may return a watcher.
func (q *Queue) Wake() <-chan struct{} { return q.wake }

// push appends a watcher, unless the queue has it.
func (q *Queue) push(w *Watcher) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.queued {
		return
	}
	w.queued = true
	q.woken = append(q.woken, w)
	signal.Poke(q.wake)
}

// Pop removes the watcher that was woken first, and returns it, or nil if there is none.
func (q *Queue) Pop() *Watcher {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == len(q.first) {
		q.first, q.woken, q.next = q.woken, q.first[:0], 0
	}
	if q.next == len(q.first) {
		return nil
	}
	w := q.first[q.next]
	w.queued = false
	q.first[q.next] = nil
	q.next++
	return w
}
