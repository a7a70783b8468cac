// SPDX-License-Identifier: Apache-2.0

// Package watchhub knows which watchers wait for changes of which keys. A change wakes only the watchers
// of an affected key or range, and tells them the revisions to read, so that a rarely affected watcher
// need not read everything in between.
package watchhub

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A Change is one change of one key.
type Change struct {
	Rev int64
	Key string
}

// A Hub holds the watchers. Its methods may be called concurrently.
type Hub struct {
	mu     sync.Mutex
	keys   map[string]*group
	ranges tree
	count  atomic.Int64 // number of watchers; Len reads it without waiting for Notify

	reached atomic.Int64          // NewHub and reach write it; reach holds mu
	waiting map[*Watcher]struct{} // those that WakeAt has added since reached was written
}

// A group holds the watchers of one key or one range.
type group struct{ members map[*Watcher]struct{} }

// NewHub returns a Hub without watchers, which has reached a revision.
func NewHub(reached int64) *Hub {
	h := &Hub{keys: map[string]*group{}, waiting: map[*Watcher]struct{}{}}
	h.reached.Store(reached)
	return h
}

// A Watcher waits for changes of a key or a range. One goroutine uses it.
type Watcher struct {
	key, end    string
	wake        chan struct{}
	mu          sync.Mutex
	first, last int64
}

// Add adds a watcher of the range [key, end). An empty end means the single key, and "\x00" every key
// from key on.
func (h *Hub) Add(key, end string) *Watcher {
	w := &Watcher{key: key, end: end, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	var g *group
	if end == "" {
		if g = h.keys[key]; g == nil {
			g = &group{members: map[*Watcher]struct{}{}}
			h.keys[key] = g
		}
	} else {
		g = h.ranges.insert(key, end)
	}
	g.members[w] = struct{}{}
	h.count.Add(1)
	return w
}

// Remove removes a watcher, which receives no further notifications.
func (h *Hub) Remove(w *Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiting, w)
	var g *group
	if w.end == "" {
		g = h.keys[w.key]
	} else {
		g = h.ranges.find(w.key, w.end)
	}
	if g == nil {
		return
	}
	if _, ok := g.members[w]; !ok {
		return
	}
	delete(g.members, w)
	h.count.Add(-1)
	switch {
	case len(g.members) > 0:
	case w.end == "":
		delete(h.keys, w.key)
	default:
		h.ranges.delete(w.key, w.end)
	}
}

// Len returns the number of watchers.
func (h *Hub) Len() int { return int(h.count.Load()) }

// Applied notifies the watchers of every revision after one, up to the newest of a view. The caller has
// published the view, so a watcher that is added in the meantime finds them there.
func (h *Hub) Applied(v *mvcc.View, after int64) {
	rev := v.Revision()
	if rev == after {
		return
	}
	switch {
	case after+1 < v.CompactRevision():
		// Some of these revisions are compacted already, so the affected watchers are not known. All
		// of them read the view; those that have missed a change notice it.
		h.NotifyAll(after+1, rev)
	case h.Len() > 0:
		var changes []Change
		v.Changes(after+1, rev, func(rev int64, kvs []mvcc.KeyValue) bool {
			for _, kv := range kvs {
				changes = append(changes, Change{Rev: rev, Key: kv.Key})
			}
			return true
		})
		h.Notify(changes)
	}
	h.reach(rev)
}

// Replaced notifies all watchers that another history has replaced the one they know, up to a revision.
func (h *Hub) Replaced(rev int64) {
	h.NotifyAll(1, rev)
	h.reach(rev)
}

// reach makes rev the revision that Reached returns, and wakes the watchers that wait for it.
func (h *Hub) reach(rev int64) {
	h.mu.Lock()
	h.reached.Store(rev)
	waiting := slices.Collect(maps.Keys(h.waiting))
	clear(h.waiting)
	h.mu.Unlock()
	wake(waiting)
}

// WakeAt reports whether Reached returns rev or more. If it does not yet, the watcher is woken when
// Reached returns more than it does now.
func (h *Hub) WakeAt(w *Watcher, rev int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reached.Load() >= rev {
		return true
	}
	h.waiting[w] = struct{}{}
	return false
}

// Reached returns the newest revision of which all affected watchers have been notified.
func (h *Hub) Reached() int64 { return h.reached.Load() }

// Notify notifies the affected watchers of changes, in the order of revisions. The changes must be
// visible before it is called.
func (h *Hub) Notify(changes []Change) {
	h.mu.Lock()
	if h.count.Load() == 0 {
		h.mu.Unlock()
		return
	}
	var touched []*Watcher
	for _, c := range changes {
		tell := func(g *group) {
			for w := range g.members {
				if w.touch(c.Rev) {
					touched = append(touched, w)
				}
			}
		}
		if g := h.keys[c.Key]; g != nil {
			tell(g)
		}
		h.ranges.stab(c.Key, tell)
	}
	h.mu.Unlock()
	wake(touched)
}

// NotifyAll tells every watcher to read all revisions from first to last. It is used if the affected
// watchers are not known, because history was replaced or is compacted already.
func (h *Hub) NotifyAll(first, last int64) {
	h.mu.Lock()
	var touched []*Watcher
	tell := func(g *group) {
		for w := range g.members {
			w.touchAll(first, last)
			touched = append(touched, w)
		}
	}
	for _, g := range h.keys {
		tell(g)
	}
	h.ranges.all(tell)
	h.mu.Unlock()
	wake(touched)
}

func wake(watchers []*Watcher) {
	for _, w := range watchers {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// touch adds a revision. It reports whether the watcher had no unread revisions before.
func (w *Watcher) touch(rev int64) (first bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first = w.last == 0
	if first {
		w.first = rev
	}
	w.last = rev
	return first
}

func (w *Watcher) touchAll(first, last int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == 0 || first < w.first {
		w.first = first
	}
	w.last = last
}

// Wake returns a channel that receives a value when Take may return something, and as WakeAt says.
func (w *Watcher) Wake() <-chan struct{} { return w.wake }

// Take returns the first and the last revision that affect the watcher since the last call, or zeros.
func (w *Watcher) Take() (first, last int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first, last = w.first, w.last
	w.first, w.last = 0, 0
	return first, last
}
