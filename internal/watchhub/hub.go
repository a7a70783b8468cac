// SPDX-License-Identifier: Apache-2.0

// Package watchhub knows which watchers wait for changes of which keys. A change wakes only the watchers
// of an affected key or range, and gives them the revisions to read, so a watcher that is rarely affected
// does not read everything in between.
package watchhub

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/signal"
)

// A Change is one change of one key.
type Change struct {
	Rev int64
	Key string
}

// A Hub holds the watchers. Its methods may be called concurrently.
type Hub struct {
	mu     sync.Mutex // guards the groups and waiting
	keys   map[string]*group
	ranges tree
	count  atomic.Int64 // number of watchers; Len reads it without waiting for Notify

	reached atomic.Int64          // NewHub and reach write it; reach holds mu
	waiting map[*Watcher]struct{} // the watchers that WakeAt has added since reached was written

	notifying sync.Mutex // held by notifications; guards the fields below, which only save allocations
	changes   []Change
	affected  []*group
	touched   []*Watcher
}

// A group holds the watchers of one key or one range. The hub's mu guards it, except for size.
type group struct {
	key, end    string
	members     []*Watcher
	one         [1]*Watcher  // the array of members while it has only one, as most groups do
	size        atomic.Int32 // number of members
	first, last int64        // the revisions of the present notification that affect it; zeros between notifications
}

// NewHub returns a Hub without watchers, which has reached a revision.
func NewHub(reached int64) *Hub {
	h := &Hub{keys: map[string]*group{}, waiting: map[*Watcher]struct{}{}}
	h.reached.Store(reached)
	return h
}

// A Watcher waits for changes of a key or a range. One goroutine uses it. It is meant to be a field of its owner, so that
// both are one object: each collection of garbage visits the objects of all watchers.
type Watcher struct {
	Owner any // for the caller; the hub does not use it

	group  *group
	at     int           // the index in group.members, or -1 after Remove; guarded by the hub's mu
	wake   chan struct{} // nil with a queue
	queue  *Queue        // nil if the watcher has a channel
	queued bool          // in queue; guarded by the mu of the queue

	mu          sync.Mutex // guards the fields below
	first, last int64      // the revisions that Take returns
}

// Add adds a new watcher of the range [key, end). An empty end means the single key, and "\x00" every key
// from key on. If queue is not nil, the hub adds the watcher to it when it wakes the watcher. Otherwise the
// watcher has a channel.
func (h *Hub) Add(w *Watcher, key, end string, queue *Queue) {
	if w.queue = queue; queue == nil {
		w.wake = make(chan struct{}, 1)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if end != "" {
		w.group = h.ranges.insert(key, end)
	} else if w.group = h.keys[key]; w.group == nil {
		w.group = &group{key: key}
		h.keys[key] = w.group
	}
	w.group.add(w)
	h.count.Add(1)
}

// Remove removes a watcher, which receives no further notifications.
func (h *Hub) Remove(w *Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiting, w)
	if w.at < 0 {
		return
	}
	g := w.group
	g.remove(w)
	h.count.Add(-1)
	switch {
	case len(g.members) > 0:
	case g.end == "":
		delete(h.keys, g.key)
	default:
		h.ranges.delete(g.key, g.end)
	}
}

func (g *group) add(w *Watcher) {
	if g.members == nil {
		g.members = g.one[:0]
	}
	w.at = len(g.members)
	g.members = append(g.members, w)
	if w.at == 1 {
		g.one[0] = nil // append has copied it
	}
	g.size.Add(1)
}

// remove puts the last member in the place of a member.
func (g *group) remove(w *Watcher) {
	last := g.members[len(g.members)-1]
	g.members[w.at], last.at = last, w.at
	g.members[len(g.members)-1] = nil
	g.members = g.members[:len(g.members)-1]
	w.at = -1
	g.size.Add(-1)
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
		h.notifying.Lock()
		changes := h.changes[:0]
		v.Changes(after+1, rev, func(rev int64, kvs []mvcc.KeyValue) bool {
			for _, kv := range kvs {
				changes = append(changes, Change{Rev: rev, Key: kv.Key})
			}
			return true
		})
		h.notify(changes)
		h.changes = reusable(changes)
		h.notifying.Unlock()
	}
	h.reach(rev)
}

// Replaced notifies all watchers that another history, up to a revision, has replaced the one that they know.
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
	h.notifying.Lock()
	defer h.notifying.Unlock()
	h.notify(changes)
}

// notify visits each member of an affected group once, however many of the changes affect the group.
// The caller holds notifying.
func (h *Hub) notify(changes []Change) {
	affected, touched := h.affected[:0], h.touched[:0]
	var rev int64
	affect := func(g *group) {
		if g.last == 0 {
			g.first = rev
			affected = append(affected, g)
		}
		g.last = rev
	}
	h.mu.Lock()
	for _, c := range changes {
		rev = c.Rev
		if g := h.keys[c.Key]; g != nil {
			affect(g)
		}
		h.ranges.stab(c.Key, affect)
	}
	for _, g := range affected {
		for _, w := range g.members {
			if w.touch(g.first, g.last) {
				touched = append(touched, w)
			}
		}
		g.first, g.last = 0, 0
	}
	h.mu.Unlock()
	wake(touched)
	h.affected, h.touched = reusable(affected), reusable(touched)
}

// NotifyAll makes every watcher read all revisions from first to last. It is used if the affected
// watchers are not known, because history was replaced or is compacted already.
func (h *Hub) NotifyAll(first, last int64) {
	h.all(func(w *Watcher) { w.touchAll(first, last) })
}

// WakeAll wakes every watcher, for a reason other than a change.
func (h *Hub) WakeAll() { h.all(func(*Watcher) {}) }

// all calls fn with every watcher, and wakes it.
func (h *Hub) all(fn func(*Watcher)) {
	var all []*Watcher
	add := func(g *group) {
		for _, w := range g.members {
			fn(w)
		}
		all = append(all, g.members...)
	}
	h.mu.Lock()
	for _, g := range h.keys {
		add(g)
	}
	h.ranges.all(add)
	h.mu.Unlock()
	wake(all)
}

func wake(watchers []*Watcher) {
	for _, w := range watchers {
		w.Poke()
	}
}

// maxReusable bounds the memory that a hub keeps between notifications.
const maxReusable = 16 << 10

// reusable returns a slice that its owner may use again, without elements.
func reusable[E any](s []E) []E {
	if cap(s) > maxReusable {
		return nil
	}
	clear(s)
	return s[:0]
}

// touch adds revisions. It reports whether the watcher had no unread revisions before.
func (w *Watcher) touch(first, last int64) (woken bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	woken = w.last == 0
	if woken {
		w.first = first
	}
	w.last = last
	return woken
}

func (w *Watcher) touchAll(first, last int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == 0 || first < w.first {
		w.first = first
	}
	w.last = last
}

// Wake returns a channel that receives a value when Take may return something, as WakeAt says, and after
// Poke. It returns nil if the watcher has a queue.
func (w *Watcher) Wake() <-chan struct{} { return w.wake }

// Poke wakes a watcher. It does not block.
func (w *Watcher) Poke() {
	if w.queue != nil {
		w.queue.push(w)
	} else {
		signal.Poke(w.wake)
	}
}

// Shared reports whether another watcher has the same key or range.
func (w *Watcher) Shared() bool { return w.group.size.Load() > 1 }

// Take returns the first and the last revision that affect the watcher since the last call, or zeros.
func (w *Watcher) Take() (first, last int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	first, last = w.first, w.last
	w.first, w.last = 0, 0
	return first, last
}
