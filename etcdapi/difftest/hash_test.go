// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A node and an etcd with the same history have the same hash. The exception is a compaction that leaves a part of a
// revision with several changes. In this test no such revision is older than a compaction.
func TestHashKVEqualsEtcds(t *testing.T) {
	etcd, node := endpoints(t)
	c := newComparison(t, etcd, node)
	hash := func(e *endpoint, rev int64) string {
		r, err := e.maintenance.HashKV(t.Context(), &pb.HashKVRequest{Revision: rev})
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(r.Hash, r.CompactRevision, r.HashRevision)
	}
	single := func() {
		for range 40 {
			c.do(to("Put", &pb.PutRequest{Key: []byte(pick(c.generator, keys...)), Value: c.value()}, kv, pb.KVClient.Put))
			c.do(to("DeleteRange", &pb.DeleteRangeRequest{Key: []byte(pick(c.generator, keys...))}, kv, pb.KVClient.DeleteRange))
		}
	}
	check := func(first int64) {
		for rev := first; rev <= c.rev+1; rev++ {
			require.Equal(t, hash(etcd, rev), hash(node, rev), rev)
		}
	}
	check(1)
	single()
	for range 100 {
		c.do(c.write())
	}
	check(1)
	all := to("DeleteRange", &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, kv, pb.KVClient.DeleteRange)
	c.do(all)
	check(c.rev)
	compact := func(rev int64) {
		c.do(to("Compact", &pb.CompactionRequest{Revision: rev, Physical: true}, kv, pb.KVClient.Compact))
		check(rev + 1) // etcd remembers the hash of the compaction itself, with the compact revision before
	}
	compact(c.rev) // nothing is left
	for range 5 {
		single()
		compact(c.rev - 10)
	}
	c.do(all)
	check(c.rev)
}
