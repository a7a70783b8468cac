// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// A generator makes random requests. It remembers enough of the answers to make most of them meaningful.
type generator struct {
	*rand.Rand
	rev       int64 // of the store
	compacted int64
	leases    []int64          // granted, and perhaps ended since
	wide      bool             // there are hundreds of keys
	private   string           // the prefix of its keys, if other generators run at the same time
	firstID   int64            // of its leases
	users     *users           // or nil
	urls      int              // of learners, so far
	rounds    int              // of rare requests
	turns     []func() request // the kinds of them that remain of this round
}

func newGenerator(seed uint64) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, 1)), rev: 1, compacted: -1}
}

// chance reports true once in n times, on average.
func (g *generator) chance(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

// keys are at most twelve: etcd's sort is stable for no more.
var keys = []string{"a", "a\x00", "a\xff", "aa", "ab", "b", "b\xff", "b\xff\xff", "c", "\x00", "\x00a", "\xff\xff"}

// key returns a key, or rarely none.
func (g *generator) key() []byte {
	if g.chance(60) {
		return nil
	}
	if g.private != "" {
		return []byte(g.private + pick(g, keys...))
	}
	if g.wide {
		return fmt.Appendf(nil, "%03d", g.IntN(400))
	}
	return []byte(pick(g, keys...))
}

// end returns the end of a range: of a single key, a prefix, from the key on, or any other.
func (g *generator) end() []byte {
	if g.private != "" {
		return pick(g, nil, nil, []byte(g.private+pick(g, keys...)), []byte(g.private+"\xff\xff\xff"))
	}
	switch g.IntN(6) {
	case 0, 1:
		return nil
	case 2:
		return []byte{0}
	}
	if g.wide {
		return fmt.Appendf(nil, "%02d", g.IntN(40))
	}
	return []byte(pick(g, append(keys, "d", "b\x00", "\xff\xff\xff")...))
}

func (g *generator) value() []byte {
	if g.chance(10) {
		return nil
	}
	if g.wide && g.chance(100) {
		return make([]byte, g.IntN(300<<10))
	}
	return []byte(pick(g, "", "1", "9", "18", "x", "y", strings.Repeat("z", g.IntN(40))))
}

// revision returns a revision around the present, around the compaction, or none.
func (g *generator) revision() int64 {
	if g.private != "" {
		return 0 // others move the revision
	}
	if g.chance(100) {
		return pick[int64](g, math.MaxInt64, math.MinInt64)
	}
	switch g.IntN(8) {
	case 0:
		return g.rev + int64(g.IntN(5)) - 2
	case 1:
		return g.compacted + int64(g.IntN(3)) - 1
	case 2:
		return max(1, g.rev-int64(g.IntN(20)))
	case 3:
		return -int64(g.IntN(3))
	}
	return 0
}

// filter returns the bound of a revision, or mostly none.
func (g *generator) filter() int64 {
	if g.private != "" || !g.chance(6) {
		return 0
	}
	return max(0, g.rev-int64(g.IntN(30))) + int64(g.IntN(4)) - 1
}

func (g *generator) limit() int64 {
	if g.chance(100) {
		return pick[int64](g, math.MaxInt64, math.MinInt64)
	}
	if g.chance(3) {
		if g.wide {
			return int64(g.IntN(200))
		}
		return int64(g.IntN(14)) - 1
	}
	return 0
}

// leaseID returns the ID of a lease that may exist.
func (g *generator) leaseID() int64 {
	if len(g.leases) == 0 || g.chance(20) {
		return pick[int64](g, 0, -1, 99999)
	}
	return pick(g, g.leases...)
}

// keyAndEnd returns a range. If there are users and the range is empty, its end is its key: for any other empty range,
// etcd checks the permission for the range between its bounds, whichever is first.
func (g *generator) keyAndEnd() (key, end []byte) {
	key, end = g.key(), g.end()
	if g.users != nil && string(end) != "\x00" && bytes.Compare(end, key) <= 0 {
		end = nil
	}
	return key, end
}

func (g *generator) rangeRequest() *pb.RangeRequest {
	key, end := g.keyAndEnd()
	r := &pb.RangeRequest{
		Key: key, RangeEnd: end, Limit: g.limit(), Revision: g.revision(), Serializable: g.chance(4),
		KeysOnly: g.chance(6), CountOnly: g.chance(10), MinModRevision: g.filter(), MaxModRevision: g.filter(),
		MinCreateRevision: g.filter(), MaxCreateRevision: g.filter(),
	}
	if g.chance(2) {
		r.SortOrder = pb.RangeRequest_SortOrder(g.IntN(3))
		r.SortTarget = pb.RangeRequest_SortTarget(g.IntN(5))
	}
	if g.wide {
		r.SortTarget = 0 // many keys have the same version, and etcd's sort is not stable
	}
	if g.chance(80) {
		r.SortOrder = pick[pb.RangeRequest_SortOrder](g, 7, -1)
	}
	if g.chance(80) {
		r.SortTarget = pick[pb.RangeRequest_SortTarget](g, 9, -1)
	}
	return r
}

func (g *generator) put() *pb.PutRequest {
	r := &pb.PutRequest{
		Key: g.key(), Value: g.value(), PrevKv: g.chance(3), IgnoreValue: g.chance(8), IgnoreLease: g.chance(8),
	}
	if g.chance(3) {
		r.Lease = g.leaseID()
	}
	if r.IgnoreValue && !g.chance(6) {
		r.Value = nil
	}
	if r.IgnoreLease && !g.chance(6) {
		r.Lease = 0
	}
	return r
}

func (g *generator) deleteRange() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{PrevKv: g.chance(3)}
	r.Key, r.RangeEnd = g.keyAndEnd()
	if !g.chance(3) {
		r.RangeEnd = nil
	}
	return r
}

func (g *generator) compare() *pb.Compare {
	c := &pb.Compare{Result: pb.Compare_CompareResult(g.IntN(4)), Target: pb.Compare_CompareTarget(g.IntN(5))}
	c.Key, c.RangeEnd = g.keyAndEnd()
	if !g.chance(4) {
		c.RangeEnd = nil
	}
	if g.chance(100) {
		c.Result = 9
	}
	if g.chance(100) {
		c.Target = 9
	}
	if g.chance(50) {
		return c // without a value
	}
	target := c.Target
	if g.chance(30) { // a value of another target than the one compared
		target = pb.Compare_CompareTarget(g.IntN(5))
	}
	if g.private != "" {
		g.rev = 0 // its comparisons ask for the presence of a key
	}
	number := pick(g, 0, 1, g.rev, max(0, g.rev-int64(g.IntN(10))))
	switch target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: int64(g.IntN(4))}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: number}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: number}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: g.value()}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: g.leaseID()}
	}
	return c
}

// txn returns a transaction that nests to a depth. Most of them do not write a key twice by accident.
func (g *generator) txn(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.IntN(3) {
		r.Compare = append(r.Compare, g.compare())
	}
	writes := !g.chance(4)
	r.Success, r.Failure = g.ops(depth, writes), g.ops(depth, writes)
	if g.chance(50) {
		g.fill(r)
	}
	return r
}

// fill gives a transaction about as many comparisons or operations as a server accepts. The limit is 128; a nested
// transaction has the part that its parent does not use.
func (g *generator) fill(r *pb.TxnRequest) {
	n := pick(g, 60, 64, 68, 126, 127, 128, 129)
	switch g.IntN(3) {
	case 0:
		for len(r.Compare) < n {
			r.Compare = append(r.Compare, g.compare())
		}
	case 1:
		for len(r.Success) < n {
			r.Success = append(r.Success, rangeOp(&pb.RangeRequest{Key: []byte("a")}))
		}
	case 2:
		for len(r.Failure) < n {
			r.Failure = append(r.Failure, rangeOp(&pb.RangeRequest{Key: []byte("a")}))
		}
	}
}

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func (g *generator) ops(depth int, writes bool) (ops []*pb.RequestOp) {
	for range g.IntN(4) {
		kind := g.IntN(10)
		switch {
		case kind < 4 || !writes:
			ops = append(ops, rangeOp(g.rangeRequest()))
		case kind < 7:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put()}})
		case kind < 8:
			d := g.deleteRange()
			if string(d.RangeEnd) == "\x00" {
				d.RangeEnd = []byte("\xff\xff\xff") // etcd's check of written keys overlooks a range without an end
			}
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d}})
		case depth > 0:
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth - 1)}})
		case g.chance(10):
			ops = append(ops, pick(g, &pb.RequestOp{}, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{}}, rangeOp(nil)))
		}
	}
	return ops
}

func (g *generator) watch() *pb.WatchCreateRequest {
	key, end := g.keyAndEnd()
	r := &pb.WatchCreateRequest{Key: key, RangeEnd: end, PrevKv: g.chance(2), Fragment: g.chance(4)}
	if g.chance(2) {
		r.StartRevision = g.revision()
	}
	for _, filter := range []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE} {
		if g.chance(5) {
			r.Filters = append(r.Filters, filter)
		}
	}
	if g.chance(30) {
		r.Filters = append(r.Filters, 9)
	}
	if g.chance(3) {
		r.WatchId = pick[int64](g, 1, 1, 1, 2, 2, 3, -1, -2, math.MaxInt64)
	}
	r.ProgressNotify = r.WatchId != -1 && g.chance(4) // -1 is also the ID of answers about all watches
	return r
}

// unknown adds a field to a message that no version of etcd has.
func unknown(m proto.Message) {
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 7))
}
