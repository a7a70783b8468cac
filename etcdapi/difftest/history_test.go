// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// A history is the events of a watch of all keys from revision 2 on, which continues at another member when its stream ends.
// mu guards events, next and wrong.
type history struct {
	members []*endpoint
	mu      sync.Mutex
	events  []*mvccpb.Event
	next    int64    // the revision from which the watch continues
	wrong   []string // breaches of the promises of a watch
}

// follow records the history of a store until the test ends.
func follow(t testing.TB, members []*endpoint) *history {
	h := &history{members: members, next: 2}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			h.watch(ctx, members[i%len(members)])
			pause(ctx, 10*time.Millisecond)
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return h
}

// pause waits for a while, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// watch records events until the stream ends.
func (h *history) watch(ctx context.Context, e *endpoint) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := e.watch.Watch(ctx)
	if err != nil {
		return
	}
	h.mu.Lock()
	q := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: h.next, PrevKv: true}
	h.mu.Unlock()
	if stream.Send(createWatch(q)) != nil {
		return
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return
		}
		h.mu.Lock()
		for _, event := range r.Events {
			// A revision is never split, so it continues the last one or is the next.
			if rev := event.Kv.ModRevision; rev != h.next && rev != h.next-1 || event == r.Events[0] && rev != h.next {
				h.wrong = append(h.wrong, fmt.Sprintf("revision %d of %s where %d is next", rev, e.name, h.next))
			}
			h.events = append(h.events, event)
			h.next = event.Kv.ModRevision + 1
		}
		h.mu.Unlock()
	}
}

// until waits until the history has a revision, and returns its events.
func (h *history) until(t testing.TB, rev int64) []*mvccpb.Event {
	require.Eventually(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.next > rev
	}, 30*time.Second, time.Millisecond)
	h.mu.Lock()
	defer h.mu.Unlock()
	require.Empty(t, h.wrong)
	return h.events
}

// An answeredRange is a linearizable range over all keys, or a serializable one, at the revision of its header.
type answeredRange struct {
	rev int64
	kvs []*mvccpb.KeyValue
}

// checkHistory replays events. Each must fit the state before it, and each range must be the state at its revision.
func checkHistory(t testing.TB, events []*mvccpb.Event, ranges []answeredRange) (state map[string]*mvccpb.KeyValue) {
	at := map[int64][]answeredRange{}
	for _, r := range ranges {
		at[r.rev] = append(at[r.rev], r)
	}
	state = map[string]*mvccpb.KeyValue{}
	check := func(rev int64) {
		for _, r := range at[rev] {
			require.Len(t, r.kvs, len(state), "range at revision %d", rev)
			for _, got := range r.kvs {
				require.True(t, proto.Equal(state[string(got.Key)], got), "range at revision %d: %v, not %v", rev, got, state[string(got.Key)])
			}
		}
	}
	rev := int64(1)
	for _, event := range events {
		for ; rev < event.Kv.ModRevision; rev++ {
			check(rev)
		}
		before := state[string(event.Kv.Key)]
		require.True(t, proto.Equal(before, event.PrevKv), "%v after %v", event, before)
		if event.Type == mvccpb.Event_DELETE {
			require.NotNil(t, before, event)
			delete(state, string(event.Kv.Key))
			continue
		}
		if before == nil {
			before = &mvccpb.KeyValue{CreateRevision: event.Kv.ModRevision}
		}
		require.Equal(t, before.CreateRevision, event.Kv.CreateRevision, event)
		require.Equal(t, before.Version+1, event.Kv.Version, event)
		state[string(event.Kv.Key)] = event.Kv
	}
	check(rev)
	return state
}
