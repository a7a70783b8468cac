// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"flag"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
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

// enough reports whether the requests of a test reach everything that it must reach. The first 2,000 requests of the
// first seed do so, too.
func enough() bool { return requests() >= 10_000 || *seed == 1 && requests() >= 2000 }

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
	etcd, node = around(etcd, node)
	c.Errorf("request %d of seed %d, at revision %d, compacted %d: %s\n--- etcd\n%s\n--- coterie\n%s", c.sent, *seed, c.rev, c.compacted, what, etcd, node)
	if c.differences >= *most {
		c.FailNow()
	}
}

// around returns two texts from shortly before the first difference on.
func around(a, b string) (string, string) {
	same := 0
	for same < min(len(a), len(b)) && a[same] == b[same] {
		same++
	}
	cut := func(text string) string { return text[max(0, same-300):min(len(text), same+1000)] }
	return cut(a), cut(b)
}

// do sends a request to both servers, of some user.
func (c *comparison) do(r request) { c.doAs(c.identity(), r) }

func (c *comparison) doAs(user string, r request) {
	ctx, cancel := context.WithTimeout(c.Context(), 20*time.Second)
	defer cancel()
	c.sent++
	answer := func(e *endpoint) outcome {
		resp, err := r.send(e.as(ctx, user), e)
		if err == nil {
			resp = normalize(resp)
		}
		return outcome{resp, err}
	}
	etcd, node := answer(c.etcd), answer(c.node)
	if !sameOutcome(etcd, node) && !explained(r.pb, etcd, node) {
		c.differ(user+": "+r.String(), etcd.text(), node.text())
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

// compare sends requests until their number is count, but at least one whole round of rare ones.
func (c *comparison) compare(count int, rare bool) {
	for c.sent < count {
		switch n := c.IntN(100); {
		case n < 50:
			c.do(c.write())
		case n < 90:
			c.do(c.read())
		case n < 93:
			c.do(c.compact())
		case n < 95 && rare:
			c.do(c.rare())
		default:
			c.watchEpisode()
		}
	}
	for rare && (c.rounds < 1 || len(c.turns) > 0) {
		c.do(c.rare())
	}
	c.Logf("%d requests, revision %d: %v", c.sent, c.rev, c.kinds)
}

// ofStore are the parts of the protocol without users that TestSameAnswers reaches.
var ofStore = wanted{
	services: append(services(pb.File_rpc_proto, "KV", "Watch", "Lease", "Cluster", "Maintenance"),
		services(v3lockpb.File_v3lock_proto, "Lock")[0], services(v3electionpb.File_v3election_proto, "Election")[0]),
	parts: []string{
		"RangeRequest.limit<0", "RangeRequest.revision<0", "WatchCreateRequest.start_revision<0", "LeaseGrantRequest.ID<0",
	},
	errors: append(texts(
		rpctypes.ErrGRPCEmptyKey, rpctypes.ErrGRPCKeyNotFound, rpctypes.ErrGRPCValueProvided, rpctypes.ErrGRPCLeaseProvided,
		rpctypes.ErrGRPCTooManyOps, rpctypes.ErrGRPCDuplicateKey, rpctypes.ErrGRPCInvalidSortOption, rpctypes.ErrGRPCCompacted,
		rpctypes.ErrGRPCFutureRev, rpctypes.ErrGRPCNoSpace, rpctypes.ErrGRPCLeaseNotFound, rpctypes.ErrGRPCLeaseExist,
		rpctypes.ErrGRPCLeaseTTLTooLarge, rpctypes.ErrGRPCPeerURLExist, rpctypes.ErrGRPCMemberNotEnoughStarted,
		rpctypes.ErrGRPCMemberBadURLs, rpctypes.ErrGRPCMemberNotFound, rpctypes.ErrGRPCMemberNotLearner,
		rpctypes.ErrGRPCLearnerNotReady, rpctypes.ErrGRPCTooManyLearners, rpctypes.ErrGRPCRequestTooLarge, rpctypes.ErrGRPCCorrupt,
		rpctypes.ErrGRPCBadLeaderTransferee, rpctypes.ErrGRPCWrongDowngradeVersionFormat,
		rpctypes.ErrGRPCInvalidDowngradeTargetVersion,
	),
		"cancelled: mvcc: watcher range is empty", "cancelled: mvcc: duplicate watch ID", "cancelled: etcdserver: mvcc: required revision",
		"received message larger than max", "custom sort orders", "revision filters", "unknown service", "unknown method",
		"election: no leader", "election: not leader", "field must be provided"),
	without: map[string]string{
		"LeaseGrantResponse.error":       "no etcd sets it",
		"MemberPromoteRequest.ID":        "the learner does not run",
		"MemberPromoteResponse.header":   "as above",
		"MemberPromoteResponse.members":  "as above",
		"StatusResponse.isLearner":       "there is one member",
		"DowngradeRequest.action=ENABLE": "it succeeds for the minor version before, to which a node cannot go back",
		"DowngradeInfo.enabled":          "the downgrade of an etcd is absent here",
		"DowngradeInfo.targetVersion":    "as above",
		"DefragmentResponse.header":      "etcd does not set it",
		"SnapshotResponse.header":        "etcd does not set it",
		"MoveLeaderResponse.header":      "etcd does not set it",
	},
}

// services returns some services of a file.
func services(file protoreflect.FileDescriptor, names ...protoreflect.Name) (list []protoreflect.ServiceDescriptor) {
	for _, name := range names {
		list = append(list, file.Services().ByName(name))
	}
	return list
}

func texts(errs ...error) (texts []string) {
	for _, err := range errs {
		texts = append(texts, status.Convert(err).Message())
	}
	return texts
}

// A node answers every request as etcd does. The flags make it longer, or repeat it.
func TestSameAnswers(t *testing.T) {
	etcd, node := endpointsWithNotifications(t)
	newComparison(t, etcd, node).compare(requests(), true)
	if enough() {
		etcd.coverage.check(t, ofStore)
	}
}

// A follower answers every request as etcd does. It passes writes on to the leader.
func TestSameAnswersOfFollower(t *testing.T) {
	t.Parallel()
	newComparison(t, dial(t, "etcd", startEtcd(t)), endpointOfFollower(t)).compare(requests()/3, false)
}

// Ranges of hundreds of keys are the same, too, in any number of responses.
func TestSameAnswersOfManyKeys(t *testing.T) {
	t.Parallel()
	etcd, node := endpoints(t)
	c := newComparison(t, etcd, node)
	c.wide = true
	for range 400 {
		c.do(to("Put", &pb.PutRequest{Key: c.key(), Value: c.value()}, kv, pb.KVClient.Put))
	}
	c.compare(c.sent+requests()/3, false)
}
