// SPDX-License-Identifier: Apache-2.0

// Package watch knows who waits for changes of which keys. A change wakes only those whose key or
// range it touches, and tells them where to look, so that whoever is rarely concerned need not look
// at all that happens in between.
package watch

import (
	"sync"
	"sync/atomic"

	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A Change is one change of one key.
type Change struct {
	Rev int64
	Key string
}

// A Hub has the watchers. Its methods may be called concurrently.
type Hub struct {
	mu     sync.Mutex
	keys   map[string]*group
	ranges tree
	count  atomic.Int64 // of watchers; whoever asks for it alone does not wait for a Notify

	reached atomic.Int64 // written by the goroutine that calls Applied and Replaced
}

// A group is the watchers of one key or one range.
type group struct{ members map[*Watcher]struct{} }

// NewHub returns a Hub without watchers.
func NewHub() *Hub { return &Hub{keys: map[string]*group{}} }

// A Watcher waits for changes of a key or a range. One goroutine uses it.
type Watcher struct {
	key, end    string
	wake        chan struct{}
	mu          sync.Mutex
	first, last int64
}

// Add adds a watcher of the range [key, end): with an empty end of the single key, with "\x00" of
// every key from key on.
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

// Remove removes a watcher. It is told nothing any more.
func (h *Hub) Remove(w *Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
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

// Len returns how many watchers there are.
func (h *Hub) Len() int { return int(h.count.Load()) }

// Applied notifies the watchers of every revision after one, up to the newest of a view. The caller has
// published the view, so a watcher that is added meanwhile finds them there.
func (h *Hub) Applied(v *mvcc.View, after int64) {
	rev := v.Revision()
	if rev == after {
		return
	}
	switch {
	case after+1 < v.CompactRevision():
		// Some of these revisions are compacted already, so which watchers they concern is not known.
		// All of them look, and find that they have missed something.
		h.NotifyAll(after+1, rev)
	case h.Len() > 0:
		var changes []Change
		v.Changes(after+1, rev, func(rev int64, kvs []*mvcc.KeyValue) bool {
			for _, kv := range kvs {
				changes = append(changes, Change{Rev: rev, Key: kv.Key})
			}
			return true
		})
		h.Notify(changes)
	}
	h.reached.Store(rev)
}

// Replaced notifies all watchers that another history has replaced the one they know, up to a revision.
func (h *Hub) Replaced(rev int64) {
	h.NotifyAll(1, rev)
	h.reached.Store(rev)
}

// Reached returns the newest revision of which every watcher has been notified that it concerns.
func (h *Hub) Reached() int64 { return h.reached.Load() }

// Notify tells the watchers that are concerned of changes, in the order of revisions. Whoever looks
// then must find them.
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

// NotifyAll tells every watcher to look at everything from one revision to another: which of them
// concern it is not known, for history was replaced, or has been compacted already.
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

// touch notes a revision; it reports whether the watcher had looked at all it was told of before.
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

// Wake returns a channel that has a value when there may be something to Take.
func (w *Watcher) Wake() <-chan struct{} { return w.wake }

// Take returns the first and the last revision that concern the watcher since it was last called;
// zeros if there are none.
func (w *Watcher) Take() (first, last int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first, last = w.first, w.last
	w.first, w.last = 0, 0
	return first, last
}
