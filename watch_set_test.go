// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// A watchSet is a set of a test. Its watches belong to the program itself.
type watchSet struct {
	*testing.T
	*coterie.WatchSet
	view *coterie.UserView
}

func newWatchSet(t *testing.T, n *coterie.Node) watchSet {
	s := watchSet{t, coterie.NewWatchSet(n), coterie.NewUncheckedView(n)}
	t.Cleanup(s.Close)
	return s
}

func (s watchSet) add(id int64, key string, opts ...coterie.WatchOption) {
	s.Helper()
	require.NoError(s, s.Add(s.view, id, key, opts...))
}

// drain returns the responses that the set has now, by watch. It runs in a bubble.
func (s watchSet) drain() map[int64][]string {
	s.Helper()
	synctest.Wait() // a node answers writes before it notifies watches
	all := map[int64][]string{}
	for {
		id, r, ok := s.Next()
		if !ok {
			return all
		}
		if r.Err != nil {
			all[id] = append(all[id], r.Err.Error())
		} else {
			all[id] = append(all[id], show(r.WatchResponse))
		}
	}
}

func TestWatchSetReturnsEventsOfItsWatches(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		put(t, n, "k", "old")
		s := newWatchSet(t, n)
		s.add(1, "k", coterie.WithRevision(2))
		s.add(2, "k", coterie.WithPrefix(), coterie.WithFilterPut())
		s.add(3, "other")
		require.Equal(t, map[int64][]string{1: {"2: PUT k=old"}}, s.drain())
		put(t, n, "k", "1")
		put(t, n, "other", "2")
		del(t, n, "k")
		require.Len(t, s.Ready(), 1)
		require.Equal(t, map[int64][]string{
			1: {"3: PUT k=1", "5: DELETE k="}, 2: {"5: DELETE k="}, 3: {"4: PUT other=2"},
		}, s.drain())
		put(t, n, "k", "3")
		s.Remove(1)
		s.Remove(1)
		require.Empty(t, s.drain())
		s.add(1, "k")
		put(t, n, "k", "4")
		require.Equal(t, map[int64][]string{1: {"7: PUT k=4"}}, s.drain())
		require.Equal(t, 3, n.Status().Watchers)
		s.Close()
		require.Zero(t, n.Status().Watchers)
	})
}

func TestWatchSetReportsProgress(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		s := newWatchSet(t, n)
		s.add(1, "k")
		s.add(2, "k", coterie.WithRevision(4))
		for id := range int64(4) {
			s.RequestProgress(id)
		}
		require.Equal(t, map[int64][]string{1: {"1: "}}, s.drain())
		put(t, n, "k", "2")
		s.RequestProgress(1)
		require.Equal(t, map[int64][]string{1: {"2: PUT k=2", "2: "}}, s.drain(), "events come before")
		put(t, n, "other", "3")
		require.Empty(t, s.drain())
		put(t, n, "other", "4")
		<-s.Ready()
		require.Equal(t, map[int64][]string{2: {"4: "}}, s.drain())
	})
}

// A watch that is far behind does not keep the others from their events, and ends if a compaction overtakes it.
func TestWatchSetWatchesTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		for i := range 2500 {
			put(t, n, "k", fmt.Sprint(i))
		}
		s := newWatchSet(t, n)
		s.add(1, "k", coterie.WithRevision(1))
		s.add(2, "other")
		put(t, n, "other", "v")
		synctest.Wait()
		before := 0
		for {
			id, r, ok := s.Next()
			require.True(t, ok)
			require.NoError(t, r.Err)
			if id == 2 {
				break
			}
			before++
			require.EqualValues(t, before+1, r.Revision)
		}
		require.Equal(t, 1000, before)
		require.NoError(t, errOf(n.Compact(t.Context(), 2000)))
		id, r, ok := s.Next()
		require.True(t, ok)
		require.EqualValues(t, 1, id)
		var compacted *coterie.CompactedError
		require.ErrorAs(t, r.Err, &compacted)
		require.EqualValues(t, 2000, compacted.Revision)
		require.Empty(t, s.drain())
		require.Equal(t, 1, n.Status().Watchers)
	})
}

func TestWatchSetRefusesWatches(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		s := newWatchSet(t, n)
		s.add(1, "k")
		for _, opt := range []coterie.WatchOption{
			coterie.WithCreatedNotify(), coterie.WithProgressNotify(), coterie.WithProgressRequests(make(chan struct{})),
			coterie.WithRequireLeader(), coterie.WithRange("a"),
		} {
			require.ErrorIs(t, s.Add(s.view, 2, "k", opt), coterie.ErrInvalidOption)
		}
		require.ErrorIs(t, s.Add(s.view, 1, "k"), coterie.ErrInvalidOption, "the ID is in use")
		require.ErrorIs(t, s.Add(s.view, 2, ""), coterie.ErrEmptyKey)
		require.Equal(t, 1, n.Status().Watchers)
	})
}

func TestWatchSetEndsWithItsNode(t *testing.T) {
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true})
	require.NoError(t, err)
	s := newWatchSet(t, n)
	s.add(1, "k")
	_, _, ok := s.Next()
	require.False(t, ok)
	require.NoError(t, n.Close())
	<-s.Ready()
	id, r, _ := s.Next()
	require.EqualValues(t, 1, id)
	require.ErrorIs(t, r.Err, coterie.ErrClosed)
}
