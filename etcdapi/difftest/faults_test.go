// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// faultRounds returns how often TestSamePromisesUnderFaults causes each fault.
func faultRounds() int { return max(1, requests()/2000) }

// electionTimeout is that of the members that stop and start again.
const electionTimeout = 200 * time.Millisecond

// allowedErrors are the errors of etcd while its members change their leader, stop and start.
var allowedErrors = texts(
	rpctypes.ErrGRPCNoLeader, rpctypes.ErrGRPCLeaderChanged, rpctypes.ErrGRPCStopped, rpctypes.ErrGRPCTimeout,
	rpctypes.ErrGRPCTimeoutDueToLeaderFail, rpctypes.ErrGRPCTimeoutDueToConnectionLost, rpctypes.ErrGRPCTimeoutWaitAppliedIndex,
)

// A worker is a client of several members. After an error it uses the next one.
type worker struct {
	*rand.Rand
	index, at, sent int
	cluster         *faultyCluster
	acknowledged    []*mvccpb.KeyValue // puts
	ranges          []answeredRange
	counted, open   int            // increments that were acknowledged, and that may have happened
	errors          map[string]int // by code and text
	wrong           []string
}

// A faultyCluster is the state that the workers share.
type faultyCluster struct {
	*trio
	newest atomic.Int64 // the newest revision that was acknowledged
}

// note handles the header or the error of a call that began when another revision was the newest.
func (w *worker) note(h *pb.ResponseHeader, err error, began int64) bool {
	if err != nil {
		w.errors[status.Code(err).String()+": "+status.Convert(err).Message()]++
		if !isAllowed(err) {
			w.wrong = append(w.wrong, err.Error())
		}
		w.at++
		return false
	}
	if h.Revision < began {
		w.wrong = append(w.wrong, fmt.Sprintf("revision %d after %d was acknowledged", h.Revision, began))
	}
	for {
		newest := w.cluster.newest.Load()
		if h.Revision <= newest || w.cluster.newest.CompareAndSwap(newest, h.Revision) {
			return true
		}
	}
}

// isAllowed reports whether a client may get an error during a fault. Those of connections have texts of gRPC.
func isAllowed(err error) bool {
	s := status.Convert(err)
	if s.Code() == codes.Unknown {
		return s.Message() == "raft proposal dropped" // of etcd without a leader
	}
	return s.Code() == codes.DeadlineExceeded || s.Code() == codes.Unavailable &&
		(slices.Contains(allowedErrors, s.Message()) || !isOfServer(s.Message()))
}

func isOfServer(text string) bool {
	return strings.HasPrefix(text, "etcdserver:") || strings.HasPrefix(text, "coterie")
}

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		w.step(call, w.cluster.members[w.at%len(w.cluster.members)])
		cancel()
	}
}

func (w *worker) step(ctx context.Context, e *endpoint) {
	w.sent++
	began := w.cluster.newest.Load()
	key := fmt.Appendf(nil, "%d/%d", w.index, w.IntN(3))
	switch n := w.IntN(10); {
	case n < 5:
		q := &pb.PutRequest{Key: key, Value: fmt.Appendf(nil, "%d/%d", w.index, w.sent)}
		r, err := e.kv.Put(ctx, q)
		if w.note(r.GetHeader(), err, began+1) {
			w.acknowledged = append(w.acknowledged, &mvccpb.KeyValue{Key: q.Key, Value: q.Value, ModRevision: r.Header.Revision})
		}
	case n < 6:
		r, err := e.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: key})
		w.note(r.GetHeader(), err, began)
	case n < 8:
		value, rev, err := e.readCounter(ctx)
		if err != nil {
			w.note(nil, err, 0)
			return
		}
		r, err := e.kv.Txn(ctx, incrementOf(value, rev))
		if !w.note(r.GetHeader(), err, began) {
			w.open++
		} else if r.Succeeded {
			w.counted++
		}
	default:
		q := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Serializable: n == 9}
		if q.Serializable {
			began = 0
		}
		r, err := e.kv.Range(ctx, q)
		if w.note(r.GetHeader(), err, began) {
			w.ranges = append(w.ranges, answeredRange{r.Header.Revision, r.Kvs})
		}
	}
}

// A fault is a disturbance of a trio.
var faults = []struct {
	name  string
	cause func(t *testing.T, c *trio)
}{
	{"the leader hands over", func(t *testing.T, c *trio) { c.moveLeader(t) }},
	{"the leader stops", func(t *testing.T, c *trio) { c.restart(t, c.leader(t)) }},
	{"a follower stops", func(t *testing.T, c *trio) { c.restart(t, (c.leader(t)+1)%3) }},
	{"two members stop", func(t *testing.T, c *trio) {
		leader := c.leader(t)
		c.stop[leader]()
		c.restart(t, (leader+1)%3)
		c.start[leader]()
	}},
}

func (c *trio) moveLeader(t *testing.T) {
	leader := c.leader(t)
	var to *pb.StatusResponse
	var err error
	require.Eventually(t, func() bool { // the client may not have a new connection yet
		to, err = c.members[(leader+1)%3].maintenance.Status(t.Context(), &pb.StatusRequest{})
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)
	// It may fail, if the leader changes by itself.
	_, err = c.members[leader].maintenance.MoveLeader(t.Context(), &pb.MoveLeaderRequest{TargetID: to.Header.MemberId})
	if err != nil {
		t.Logf("%s: %v", c.members[leader].name, err)
	}
}

// restart stops a member for some election timeouts.
func (c *trio) restart(t *testing.T, i int) {
	c.stop[i]()
	pause(t.Context(), 4*electionTimeout)
	c.start[i]()
}

// disturb causes every fault while workers send requests, and checks the promises of the store: every acknowledged write is
// in the history at its revision, no write is there twice, revisions are whole and in order, a range is the state at its
// revision and no older than what was acknowledged before it, and all members end with the same state.
func disturb(t *testing.T, c *trio) {
	shared := &faultyCluster{trio: c}
	history := follow(t, c.members)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	workers := make([]*worker, 4)
	for i := range workers {
		workers[i] = &worker{Rand: rand.New(rand.NewPCG(*seed, uint64(i))), index: i, at: i, cluster: shared, errors: map[string]int{}}
		running.Go(func() { workers[i].run(ctx) })
	}
	for range faultRounds() {
		for _, f := range faults {
			before := shared.newest.Load()
			f.cause(t, c)
			c.leader(t)
			require.Eventually(t, func() bool { return shared.newest.Load() > before }, 30*time.Second, 10*time.Millisecond, f.name)
		}
	}
	cancel()
	running.Wait()

	r, err := c.members[0].kv.Put(t.Context(), &pb.PutRequest{Key: []byte("end")})
	require.NoError(t, err)
	events := history.until(t, r.Header.Revision)
	counted, open, ranges, errors := 0, 0, []answeredRange(nil), map[string]int{}
	for _, w := range workers {
		assert.Empty(t, w.wrong)
		counted, open, ranges = counted+w.counted, open+w.open, append(ranges, w.ranges...)
		for text, n := range w.errors {
			errors[text] += n
		}
		checkAcknowledged(t, events, w.acknowledged)
	}
	checkOnce(t, events)
	state := checkHistory(t, events, ranges)
	checkMembers(t, c.members, r.Header.Revision, state)
	value, _, err := c.members[0].readCounter(t.Context())
	require.NoError(t, err)
	require.GreaterOrEqual(t, value, counted)
	require.LessOrEqual(t, value, counted+open)
	t.Logf("revision %d, %d ranges, the counter is %d; errors:", r.Header.Revision, len(ranges), value)
	for _, text := range slices.Sorted(maps.Keys(errors)) {
		t.Logf("%5d %s", errors[text], text)
	}
}

// checkAcknowledged checks that puts are in a history at their revisions.
func checkAcknowledged(t *testing.T, events []*mvccpb.Event, puts []*mvccpb.KeyValue) {
	at := map[int64]*mvccpb.Event{}
	for _, event := range events {
		at[event.Kv.ModRevision] = event
	}
	for _, put := range puts {
		event := at[put.ModRevision]
		require.NotNil(t, event, "%v was acknowledged", put)
		require.Equal(t, string(put.Key), string(event.Kv.Key), "%v was acknowledged", put)
		require.Equal(t, string(put.Value), string(event.Kv.Value), "%v was acknowledged", put)
	}
}

// checkOnce checks that no value is in a history twice: each was put by one request.
func checkOnce(t *testing.T, events []*mvccpb.Event) {
	seen := map[string]bool{}
	for _, event := range events {
		if event.Type == mvccpb.Event_PUT {
			value := string(event.Kv.Value)
			require.False(t, seen[value], event)
			seen[value] = true
		}
	}
}

// checkMembers checks that every member has a state, and that their hashes are equal.
func checkMembers(t *testing.T, members []*endpoint, rev int64, state map[string]*mvccpb.KeyValue) {
	hashes := map[uint32]bool{}
	for _, e := range members {
		var r *pb.RangeResponse
		require.Eventually(t, func() bool {
			var err error
			r, err = e.kv.Range(t.Context(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Serializable: true})
			return err == nil && r.Header.Revision >= rev
		}, 30*time.Second, 10*time.Millisecond, e.name)
		require.Len(t, r.Kvs, len(state), e.name)
		for _, got := range r.Kvs {
			require.True(t, proto.Equal(state[string(got.Key)], got), "%s: %v", e.name, got)
		}
		h, err := e.maintenance.HashKV(t.Context(), &pb.HashKVRequest{Revision: rev})
		require.NoError(t, err)
		hashes[h.Hash] = true
	}
	require.Len(t, hashes, 1)
}

// While members stop and start, a node keeps the promises of etcd, and has no other errors than etcd.
func TestSamePromisesUnderFaults(t *testing.T) {
	t.Parallel()
	t.Run("etcd", func(t *testing.T) {
		if requests() < 10_000 {
			t.Skip("takes 20 s, for etcd's timeouts; with -requests 10000")
		}
		disturb(t, startTrioOfEtcd(t))
	})
	t.Run("coterie", func(t *testing.T) { disturb(t, startTrioOfNodes(t)) })
}
