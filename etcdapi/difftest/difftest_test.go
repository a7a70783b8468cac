// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"flag"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
)

var (
	count = flag.Int("requests", 2000, "the number of requests that TestSameAnswers sends to each server; the other tests send a third")
	seed  = flag.Uint64("seed", 1, "of the requests")
	most  = flag.Int("differences", 1, "the number of differences after which TestSameAnswers stops")
)

// requests returns how many requests a test sends.
func requests() int {
	if testing.Short() {
		return min(*count, 600)
	}
	return *count
}

// A comparison sends requests to both servers.
type comparison struct {
	testing.TB
	*generator
	etcd, node  *endpoint
	sent        int
	differences int
	kinds       map[string]int // of outcomes
}

func newComparison(t testing.TB, etcd, node *endpoint) *comparison {
	return &comparison{TB: t, generator: newGenerator(*seed), etcd: etcd, node: node, kinds: map[string]int{}}
}

func (c *comparison) differ(what, etcd, node string) {
	c.differences++
	c.Errorf("request %d of seed %d, at revision %d, compacted %d: %s\n--- etcd\n%s\n--- coterie\n%s", c.sent, *seed, c.rev, c.compacted, what, etcd, node)
	if c.differences >= *most {
		c.FailNow()
	}
}

// do sends a request to both servers.
func (c *comparison) do(r request) {
	ctx, cancel := context.WithTimeout(c.Context(), 20*time.Second)
	defer cancel()
	c.sent++
	ask := func(e *endpoint) outcome {
		resp, err := r.send(ctx, e)
		if err == nil {
			resp = normalize(resp)
		}
		return outcome{resp, err}
	}
	etcd, node := ask(c.etcd), ask(c.node)
	if !sameOutcome(etcd, node) {
		c.differ(r.String(), etcd.text(), node.text())
	}
	c.kinds[strings.Fields(r.name)[0]+" "+status.Code(etcd.err).String()]++
	if etcd.err != nil {
		return
	}
	if h, ok := etcd.resp.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		c.rev = max(c.rev, h.GetHeader().GetRevision())
	}
	if r.after != nil {
		r.after(etcd.resp)
	}
}

// compare sends requests until there were as many as count.
func (c *comparison) compare(count int, rare bool) {
	for c.sent < count {
		switch n := c.IntN(100); {
		case n < 50:
			c.do(c.write())
		case n < 90:
			c.do(c.read())
		case n < 93:
			c.do(c.compact())
		case n < 94 && rare:
			c.do(c.rare())
		default:
			c.watchEpisode()
		}
	}
	c.Logf("%d requests, revision %d: %v", c.sent, c.rev, c.kinds)
}

// A node answers every request as etcd does. The flags make it longer, or repeat it.
func TestSameAnswers(t *testing.T) {
	etcd, node := endpoints(t)
	newComparison(t, etcd, node).compare(requests(), true)
}

// So does a follower, which passes writes on to the leader.
func TestSameAnswersOfFollower(t *testing.T) {
	newComparison(t, dial(t, "etcd", startEtcd(t)), endpointOfFollower(t)).compare(requests()/3, false)
}

// Ranges of hundreds of keys are the same, too, in any number of responses.
func TestSameAnswersOfManyKeys(t *testing.T) {
	etcd, node := endpoints(t)
	c := newComparison(t, etcd, node)
	c.wide = true
	for range 400 {
		c.do(to("Put", &pb.PutRequest{Key: c.key(), Value: c.value()}, kv, pb.KVClient.Put))
	}
	c.compare(c.sent+requests()/3, false)
}
