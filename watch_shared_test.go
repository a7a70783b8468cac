// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// A sharingWatch is a watch of a set, with the options that decide its events.
type sharingWatch struct {
	key, end  string // the range; end is empty for a single key
	from      int64
	prev      bool
	noPut     bool
	noDelete  bool
	responses []coterie.WatchResponse
}

func (w *sharingWatch) options() []coterie.WatchOption {
	opts := []coterie.WatchOption{coterie.WithRevision(w.from)}
	if w.end != "" {
		opts = append(opts, coterie.WithRange(w.end))
	}
	if w.prev {
		opts = append(opts, coterie.WithPrevKV())
	}
	if w.noPut {
		opts = append(opts, coterie.WithFilterPut())
	}
	if w.noDelete {
		opts = append(opts, coterie.WithFilterDelete())
	}
	return opts
}

// expected returns the events of the watch in the history of all keys.
func (w *sharingWatch) expected(history []coterie.WatchResponse) (all [][]coterie.Event) {
	for _, r := range history {
		if r.Revision < w.from {
			continue
		}
		var events []coterie.Event
		for _, e := range r.Events {
			in := e.KV.Key == w.key
			if w.end != "" {
				in = e.KV.Key >= w.key && e.KV.Key < w.end
			}
			isPut := e.Type == coterie.EventPut
			if !in || w.noPut && isPut || w.noDelete && !isPut {
				continue
			}
			if !w.prev {
				e.PrevKV = nil
			}
			events = append(events, e)
		}
		if events != nil {
			all = append(all, events)
		}
	}
	return all
}

// Watches that share events, begin at different revisions and come and go under load get each event once and in order.
func TestSharedEventsReachEachWatchOnce(t *testing.T) {
	ctx := t.Context()
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	require.NoError(t, err)
	defer n.Close()
	first, err := n.Get(ctx, "k")
	require.NoError(t, err)
	begin := first.Revision + 1

	const writers, writes, keys = 3, 150, 4
	var writing sync.WaitGroup
	for writer := range writers {
		writing.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(writer)))
			for i := range writes {
				var ops []coterie.Op
				for _, key := range random.Perm(keys)[:1+random.IntN(3)] {
					if k := fmt.Sprint("k", key); random.IntN(4) == 0 {
						ops = append(ops, coterie.OpDelete(k))
					} else {
						ops = append(ops, coterie.OpPut(k, fmt.Sprint(writer, i)))
					}
				}
				if _, err := n.Txn(ctx).Then(ops...).Commit(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { writing.Wait(); close(written) }()

	random := rand.New(rand.NewPCG(2, 2))
	set, view := coterie.NewWatchSet(n), coterie.NewUncheckedView(n)
	defer set.Close()
	watches := map[int64]*sharingWatch{}
	next := int64(0)
	add := func() {
		w := &sharingWatch{
			key: fmt.Sprint("k", random.IntN(keys)), prev: random.IntN(2) == 0, noPut: random.IntN(6) == 0, noDelete: random.IntN(6) == 0,
			from: begin + random.Int64N(n.Header().Revision-begin+3),
		}
		if random.IntN(3) == 0 {
			w.key, w.end = "k1", "k3"
		}
		next++
		watches[next] = w
		require.NoError(t, set.Add(view, next, w.key, w.options()...))
	}
	for range 30 {
		add()
	}
	receive := func() {
		for {
			id, r, ok := set.Next()
			if !ok {
				return
			}
			require.NoError(t, r.Err)
			w := watches[id]
			require.NotNil(t, w, "the watch was removed")
			w.responses = append(w.responses, r.WatchResponse)
			if random.IntN(50) == 0 {
				for id := range watches {
					set.Remove(id)
					delete(watches, id)
					break
				}
				add()
			}
		}
	}
	for done := false; !done; {
		select {
		case <-set.Ready():
			receive()
		case <-written:
			done = true
		}
	}
	last := n.Header().Revision
	var history []coterie.WatchResponse
	for r, err := range n.Watch(ctx, "k", coterie.WithPrefix(), coterie.WithRevision(begin), coterie.WithPrevKV()) {
		require.NoError(t, err)
		history = append(history, r)
		if r.Revision == last {
			break
		}
	}
	for range 3 { // watches from a later revision report progress when it is reached
		put(t, n, "other", "v")
	}
	for id := range watches {
		set.RequestProgress(id)
	}
	for open := len(watches); open > 0; {
		id, r, ok := set.Next()
		if !ok {
			<-set.Ready()
			continue
		}
		require.NoError(t, r.Err)
		watches[id].responses = append(watches[id].responses, r.WatchResponse)
		if len(r.Events) == 0 {
			open--
		}
	}
	for _, w := range watches {
		var got [][]coterie.Event
		for _, r := range w.responses {
			if len(r.Events) > 0 {
				got = append(got, r.Events)
				require.True(t, slices.ContainsFunc(r.Events, func(e coterie.Event) bool { return e.KV.ModRevision == r.Revision }))
			}
		}
		require.Equal(t, w.expected(history), got, "%+v", w.options())
	}
}

// Namespace.Watch changes the names of keys, and Follow sets PrevKV, in copies of the events that watches share.
func TestSharedEventsAreNotChanged(t *testing.T) {
	text := func(e coterie.Event) string {
		if e.PrevKV == nil {
			return fmt.Sprint(e.KV)
		}
		return fmt.Sprint(e.KV, *e.PrevKV)
	}
	bubble(t, func(t *testing.T, n *coterie.Node) {
		put(t, n, "p/k", "1")
		from := coterie.WithRevision(n.Header().Revision + 1)
		set := newWatchSet(t, n)
		for id := range int64(2) {
			set.add(id, "p/k", from, coterie.WithPrevKV())
			set.add(2+id, "p/", from, coterie.WithPrefix())
		}
		got := map[string][]coterie.Event{} // by the text that they had when they came
		for s, err := range coterie.Follow(t.Context(), n, "p/") {
			require.NoError(t, err)
			if s.KVs["p/k"].Value == "2" {
				require.Equal(t, "1", s.Events[0].PrevKV.Value)
				break
			}
			put(t, n, "p/k", "2")
			for len(got) < 2 {
				<-set.Ready()
				for _, r, ok := set.Next(); ok; _, r, ok = set.Next() {
					got[text(r.Events[0])] = r.Events
				}
			}
		}
		for r, err := range coterie.NewNamespace(n, "p/").Watch(t.Context(), "k", from, coterie.WithPrevKV()) {
			require.NoError(t, err)
			require.Equal(t, "k", r.Events[0].KV.Key)
			require.Equal(t, "k", r.Events[0].PrevKV.Key)
			break
		}
		require.Len(t, got, 2)
		for before, events := range got {
			require.Equal(t, before, text(events[0]))
		}
	})
}
