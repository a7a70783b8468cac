// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// A client is one of several that send requests at the same time. It has keys and leases of its own, so that its
// answers, except revisions, do not depend on other clients.
type client struct {
	*generator
	*endpoint
	said    []string           // its answers without revisions
	rev     int64              // the newest that it has seen
	puts    []*mvccpb.KeyValue // that were acknowledged
	ranges  []answeredRange
	counted int
	wrong   []string
}

func newClient(i int, e *endpoint) *client {
	g := &generator{
		Rand: rand.New(rand.NewPCG(*seed, uint64(i))), private: fmt.Sprintf("client %d/", i), firstID: int64(1000 * (i + 1)), compacted: -1,
	}
	return &client{generator: g, endpoint: e}
}

var revisions = regexp.MustCompile(`(revision): +\d+`)

// run sends requests.
func (c *client) run(ctx context.Context, count int) {
	for range count {
		switch n := c.IntN(100); {
		case n < 5:
			c.increment(ctx)
		case n < 10:
			c.rangeOfAll(ctx)
		case n < 60:
			c.send(ctx, c.write())
		default:
			c.send(ctx, c.privateRead())
		}
	}
}

// privateRead returns a request that reads nothing of other clients.
func (g *generator) privateRead() request {
	switch g.IntN(8) {
	case 0:
		return to("LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: g.leaseID(), Keys: true}, lease, pb.LeaseClient.LeaseTimeToLive)
	case 1:
		return g.keepAlive()
	case 2:
		return g.rangeStream()
	}
	q := g.rangeRequest()
	q.Serializable = false // a follower must also have the client's own writes
	return to("Range", q, kv, pb.KVClient.Range)
}

// send sends a request, and notes the answer.
func (c *client) send(ctx context.Context, r request) {
	resp, err := r.send(ctx, c.endpoint)
	if err == nil {
		c.see(resp)
		if put, ok := r.pb.(*pb.PutRequest); ok && !put.IgnoreValue {
			c.puts = append(c.puts, &mvccpb.KeyValue{Key: put.Key, Value: put.Value, ModRevision: c.rev})
		}
		normalize(resp)
		if r.after != nil {
			r.after(resp)
		}
	}
	c.said = append(c.said, r.String()+"\n"+revisions.ReplaceAllString(outcome{resp, err}.text(), "$1: n"))
}

// see checks that the revision does not decrease.
func (c *client) see(resp any) {
	r, ok := resp.(interface{ GetHeader() *pb.ResponseHeader })
	if !ok || r.GetHeader() == nil {
		return
	}
	if rev := r.GetHeader().Revision; rev < c.rev {
		c.wrong = append(c.wrong, fmt.Sprintf("revision %d after %d: %v", rev, c.rev, resp))
	} else {
		c.rev = rev
	}
}

const counter = "counter"

// increment adds 1 to the counter that all clients share.
func (c *client) increment(ctx context.Context) {
	for ctx.Err() == nil {
		value, rev, err := c.readCounter(ctx)
		if err != nil {
			c.wrong = append(c.wrong, err.Error())
			return
		}
		r, err := c.kv.Txn(ctx, incrementOf(value, rev))
		if err != nil {
			c.wrong = append(c.wrong, err.Error())
			return
		}
		c.see(r)
		if r.Succeeded {
			c.counted++
			return
		}
	}
}

// readCounter returns the value of the counter, and the revision that has set it.
func (e *endpoint) readCounter(ctx context.Context) (value int, rev int64, err error) {
	r, err := e.kv.Range(ctx, &pb.RangeRequest{Key: []byte(counter)})
	if err != nil || len(r.Kvs) == 0 {
		return 0, 0, err
	}
	value, err = strconv.Atoi(string(r.Kvs[0].Value))
	return value, r.Kvs[0].ModRevision, err
}

// incrementOf returns the transaction that increments the counter if no other client has changed it.
func incrementOf(value int, rev int64) *pb.TxnRequest {
	put := &pb.PutRequest{Key: []byte(counter), Value: []byte(strconv.Itoa(value + 1))}
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(counter), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: rev}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}},
	}
}

// rangeOfAll reads the keys of all clients.
func (c *client) rangeOfAll(ctx context.Context) {
	r, err := c.kv.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Serializable: c.chance(2)})
	if err != nil {
		c.wrong = append(c.wrong, err.Error())
		return
	}
	c.see(r)
	c.ranges = append(c.ranges, answeredRange{r.Header.Revision, r.Kvs})
}

// runClients sends requests of several clients at the same time, which take turns at the members, and checks the
// promises of the store: revisions do not decrease, a range is the state at its revision, a watch reports every
// revision once and in order, and no increment is lost.
func runClients(t *testing.T, members []*endpoint, clients, count int) (said [][]string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	history := follow(t, members)
	all := make([]*client, clients)
	var running sync.WaitGroup
	for i := range all {
		all[i] = newClient(i, members[i%len(members)])
		running.Go(func() { all[i].run(ctx, count) })
	}
	running.Wait()
	increments, newest, ranges := 0, int64(1), []answeredRange(nil)
	for _, c := range all {
		assert.Empty(t, c.wrong, "%s at %s", c.private, c.name)
		increments, newest, ranges = increments+c.counted, max(newest, c.rev), append(ranges, c.ranges...)
		said = append(said, c.said)
	}
	events := history.until(t, newest)
	checkHistory(t, events, ranges)
	for _, c := range all {
		checkAcknowledged(t, events, c.puts)
	}
	value, _, err := members[0].readCounter(ctx)
	require.NoError(t, err)
	require.Equal(t, increments, value)
	require.Positive(t, increments*len(ranges))
	t.Logf("%s: %d clients, %d requests each, revision %d", members[0].name, clients, count, newest)
	return said
}

// Several clients at the same time get the answers that they get from etcd, from one node and from three.
func TestSameAnswersToManyClients(t *testing.T) {
	t.Parallel()
	etcd, node := endpoints(t)
	const clients = 8
	count := requests() / 10
	want := runClients(t, []*endpoint{etcd}, clients, count)
	for _, members := range [][]*endpoint{{node}, startTrioOfNodes(t).members} {
		got := runClients(t, members, clients, count)
		for i := range want {
			for n := range want[i] {
				require.Equal(t, want[i][n], got[i][n], "request %d of client %d of seed %d", n, i, *seed)
			}
		}
	}
}
