// SPDX-License-Identifier: Apache-2.0

package watchhub

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/mvcc"
)

// add adds a watcher with a channel of its own.
func add(h *Hub, key, end string) *Watcher { return addTo(h, nil, key, end) }

// addTo adds a watcher with a queue.
func addTo(h *Hub, q *Queue, key, end string) *Watcher {
	w := new(Watcher)
	h.Add(w, key, end, q)
	return w
}

// woken reports whether a watcher's channel has a value, and takes it.
func woken(w *Watcher) bool {
	select {
	case <-w.Wake():
		return true
	default:
		return false
	}
}

// notified checks that a watcher was woken and takes these revisions, and no more afterwards.
func notified(t *testing.T, w *Watcher, first, last int64) {
	t.Helper()
	require.True(t, woken(w), "it was not woken")
	gotFirst, gotLast := w.Take()
	require.Equal(t, []int64{first, last}, []int64{gotFirst, gotLast})
	quiet(t, w)
}

// quiet checks that a watcher was not woken and has nothing to take.
func quiet(t *testing.T, w *Watcher) {
	t.Helper()
	require.False(t, woken(w), "it was woken")
	first, last := w.Take()
	require.Equal(t, []int64{0, 0}, []int64{first, last})
}

func TestChangeWakesOnlyAffectedWatchers(t *testing.T) {
	for _, c := range []struct{ key, end string }{
		{"b", ""}, {"b", "c"}, {"b", "b\x00"}, {"a", "c"}, {"a", fromKey}, {"b", fromKey}, {"c", fromKey}, {"a", "b"}, {"c", "z"},
		{"a", ""}, {"b\x00", ""}, {"c", "a"}, {"b", "b"}, {"\x00", fromKey}, {"\x00", ""}, {"\x00", "\x01"}, {"\xff", fromKey},
	} {
		for _, key := range []string{"\x00", "\x00\x00", "a", "b", "b\x00", "bb", "c", "z", "\xff\xff"} {
			h := NewHub(0)
			w := add(h, c.key, c.end)
			h.Notify([]Change{{Rev: 7, Key: key}})
			if mvcc.Contains(c.key, c.end, key) {
				notified(t, w, 7, 7)
			} else {
				quiet(t, w)
			}
		}
	}
}

func TestTakeReturnsFirstAndLastRevision(t *testing.T) {
	h := NewHub(0)
	key, other, all := add(h, "k", ""), add(h, "other", ""), add(h, "\x00", fromKey)
	h.Notify([]Change{{3, "k"}, {4, "x"}, {5, "k"}, {5, "l"}, {6, "x"}})
	notified(t, key, 3, 5)
	notified(t, all, 3, 6)
	quiet(t, other)
	h.Notify([]Change{{7, "other"}})
	notified(t, other, 7, 7)
	notified(t, all, 7, 7)
	quiet(t, key)
}

func TestChangesBeforeTakeAreMerged(t *testing.T) {
	h := NewHub(0)
	w := add(h, "k", "")
	for rev := int64(2); rev < 100; rev++ {
		h.Notify([]Change{{rev, "k"}})
	}
	notified(t, w, 2, 99)
}

// A Take without a wake-up may cause an empty wake-up later, but never a missing one.
func TestTakeBetweenChangesLosesNone(t *testing.T) {
	h := NewHub(0)
	w := add(h, "k", "")
	h.Notify([]Change{{2, "k"}})
	first, last := w.Take()
	require.Equal(t, []int64{2, 2}, []int64{first, last})
	h.Notify([]Change{{3, "k"}})
	notified(t, w, 3, 3)
}

func TestWatchersOfOneRangeGetTheSame(t *testing.T) {
	h := NewHub(0)
	a, b := add(h, "a", "c"), add(h, "a", "c")
	c, d := add(h, "b", ""), add(h, "b", "")
	require.Equal(t, 4, h.Len())
	h.Notify([]Change{{2, "b"}})
	for _, w := range []*Watcher{a, b, c, d} {
		notified(t, w, 2, 2)
	}
	h.Remove(a)
	h.Remove(c)
	h.Notify([]Change{{3, "b"}})
	notified(t, b, 3, 3)
	notified(t, d, 3, 3)
	quiet(t, a)
	quiet(t, c)
}

func TestNotifyAllWakesEveryWatcher(t *testing.T) {
	h := NewHub(0)
	key, span, before := add(h, "k", ""), add(h, "a", "b"), add(h, "k", "")
	h.Notify([]Change{{5, "k"}})
	notified(t, before, 5, 5)
	h.NotifyAll(1, 9)
	notified(t, key, 1, 9)
	notified(t, span, 1, 9)
	notified(t, before, 1, 9)
	h.Notify([]Change{{10, "k"}})
	notified(t, key, 10, 10)

	h.NotifyAll(1, 20)
	h.Notify([]Change{{21, "k"}})
	notified(t, key, 1, 21)
	notified(t, span, 1, 20)

	h.Notify([]Change{{22, "k"}})
	h.NotifyAll(23, 30)
	notified(t, key, 22, 30)
	notified(t, span, 23, 30)
}

func TestRemovedWatcherIsNotNotified(t *testing.T) {
	for _, end := range []string{"", "z", fromKey} {
		h := NewHub(0)
		w, stays := add(h, "k", end), add(h, "k", end)
		h.Remove(w)
		require.Equal(t, 1, h.Len())
		h.Remove(w)
		require.Equal(t, 1, h.Len(), "a second Remove does nothing")
		h.Notify([]Change{{2, "k"}})
		h.NotifyAll(1, 3)
		quiet(t, w)
		notified(t, stays, 1, 3)

		h.Remove(stays)
		h.Remove(stays)
		require.Zero(t, h.Len())
		require.Empty(t, h.keys, "an empty group is left")
		require.Nil(t, h.ranges.root, "an empty group is left")
		h.Notify([]Change{{4, "k"}})
		h.NotifyAll(1, 5)
		quiet(t, stays)
	}
}

// Goroutines add watchers, wait, take, and remove them while another goroutine notifies. In the end each
// remaining watcher has received the last revision that affects it, although it calls Take only after a
// wake-up.
func TestNoNotificationIsLost(t *testing.T) {
	const (
		watchers  = 32
		passing   = 4
		revisions = 3000
		keys      = 8
	)
	r := random(t)
	h := NewHub(0)
	keyOf := func(i int) string { return fmt.Sprint("k", i) }
	changes := make([]Change, revisions)
	for i := range changes {
		changes[i] = Change{Rev: int64(i + 2), Key: keyOf(r.IntN(keys))}
	}
	var coming, staying sync.WaitGroup
	notified := make(chan struct{})
	for i := range watchers {
		key, end := keyOf(r.IntN(keys)), ""
		if i%2 == 0 {
			end = []string{keyOf(r.IntN(keys)), "l", fromKey}[r.IntN(3)]
		}
		var want int64
		for _, c := range changes {
			if mvcc.Contains(key, end, c.Key) {
				want = c.Rev
			}
		}
		w := add(h, key, end)
		staying.Go(func() {
			defer h.Remove(w)
			seen := int64(0)
			for seen < want {
				<-w.Wake() // the test hangs if a notification is lost
				first, last := w.Take()
				if first == 0 {
					continue
				}
				if first <= seen || last < first {
					t.Errorf("received %d to %d after %d", first, last, seen)
					return
				}
				seen = last
			}
			if seen != want {
				t.Errorf("received revision %d, want %d", seen, want)
			}
		})
		if i >= passing {
			continue
		}
		pcg := rand.New(rand.NewPCG(r.Uint64(), uint64(i)))
		coming.Go(func() {
			for {
				select {
				case <-notified:
					return
				default:
				}
				w := add(h, keyOf(pcg.IntN(keys)), []string{"", "l", fromKey}[pcg.IntN(3)])
				if woken(w) {
					w.Take()
				}
				h.Remove(w)
			}
		})
	}
	for rest := changes; len(rest) > 0; {
		n := min(1+r.IntN(4), len(rest))
		h.Notify(rest[:n])
		rest = rest[n:]
	}
	close(notified)
	coming.Wait()
	staying.Wait()
	require.Zero(t, h.Len())
	require.Nil(t, h.ranges.root)
	require.Empty(t, h.keys)
}

func TestWakeAtWakesWhenTheRevisionIsReached(t *testing.T) {
	h := NewHub(0)
	w, other := add(h, "k", ""), add(h, "other", "")
	h.Replaced(5)
	notified(t, w, 1, 5)
	notified(t, other, 1, 5)
	require.True(t, h.WakeAt(w, 5))
	quiet(t, w)
	require.False(t, h.WakeAt(w, 6))
	require.False(t, h.WakeAt(w, 6))
	store := mvcc.New()
	for range 6 {
		store.Put("x", "", 0)
		store.Commit()
	}
	require.EqualValues(t, 7, store.Revision())
	h.Applied(store.View(), 5)
	require.True(t, woken(w), "once the revision is reached")
	require.True(t, h.WakeAt(w, 6))
	quiet(t, w)
	quiet(t, other)
	require.False(t, h.WakeAt(w, 8))
	h.Remove(w)
	h.Replaced(8)
	require.False(t, woken(w), "it was removed")
}
