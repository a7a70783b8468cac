// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-kv/coterie"
)

// A randomResponse makes random responses. Many of their fields are zero.
type randomResponse struct{ *rand.Rand }

func (r randomResponse) number() int64 {
	if r.IntN(3) == 0 {
		return 0
	}
	return int64(r.Uint64() >> r.IntN(64))
}

func (r randomResponse) text() string {
	return strings.Repeat("\x00é", []int{0, 1, 40, sharedBytes / 2, sharedBytes}[r.IntN(5)])
}

func (r randomResponse) header() coterie.Header {
	return coterie.Header{
		ClusterID: coterie.ClusterID(r.number()), MemberID: coterie.MemberID(r.number()), Revision: r.number(), Term: uint64(r.number()),
	}
}

func (r randomResponse) keyValue() coterie.KeyValue {
	return coterie.KeyValue{
		Key: r.text(), Value: r.text(), CreateRevision: r.number(), ModRevision: r.number(), Version: r.number(), Lease: coterie.LeaseID(r.number()),
	}
}

func (r randomResponse) maybe() *coterie.KeyValue {
	if r.IntN(2) == 0 {
		return nil
	}
	kv := r.keyValue()
	return &kv
}

func (r randomResponse) keyValues() (kvs []coterie.KeyValue) {
	for range r.IntN(4) {
		kvs = append(kvs, r.keyValue())
	}
	return kvs
}

func (r randomResponse) put() *coterie.PutResponse {
	return &coterie.PutResponse{Header: r.header(), PrevKV: r.maybe()}
}

func (r randomResponse) get() *coterie.GetResponse {
	return &coterie.GetResponse{Header: r.header(), KVs: r.keyValues(), Count: r.number(), More: r.IntN(2) == 0}
}

func (r randomResponse) delete() *coterie.DeleteResponse {
	return &coterie.DeleteResponse{Header: r.header(), PrevKVs: r.keyValues(), Deleted: r.number()}
}

func (r randomResponse) txn(depth int) *coterie.TxnResponse {
	t := &coterie.TxnResponse{Header: r.header(), Succeeded: r.IntN(2) == 0}
	for range r.IntN(4) {
		var op coterie.OpResponse
		switch kind := r.IntN(4); {
		case kind == 0:
			op.Put = r.put()
		case kind == 1:
			op.Get = r.get()
		case kind == 2 || depth == 0:
			op.Delete = r.delete()
		default:
			op.Txn = r.txn(depth - 1)
		}
		t.Responses = append(t.Responses, op)
	}
	return t
}

func TestEncodingIsThatOfPackageProto(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := randomResponse{rand.New(rand.NewPCG(seed, 0))}
	for range 2000 {
		put, get, del, txn := r.put(), r.get(), r.delete(), r.txn(3)
		for _, c := range []struct {
			own  encodable
			etcd proto.Message
		}{
			{(*putAnswer)(put), putResponse(put)},
			{(*getAnswer)(get), rangeResponse(get)},
			{(*deleteAnswer)(del), deleteResponse(del)},
			{(*txnAnswer)(txn), txnResponse(txn)},
			{&rangePiece{of: get, last: true}, &pb.RangeStreamResponse{RangeResponse: rangeResponse(get)}},
			{&rangePiece{of: get}, &pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Kvs: keyValues(get.KVs)}}},
		} {
			want, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.etcd)
			require.NoError(t, err)
			got, err := newCodec().Marshal(c.own)
			require.NoError(t, err)
			require.Equal(t, want, got.Materialize())
			require.Equal(t, len(want), encodedSize(c.own))
			got.Free()
		}
	}
}

func (r randomResponse) event() coterie.Event {
	e := coterie.Event{KV: r.keyValue(), PrevKV: r.maybe()}
	e.KV.Key += "key"
	if r.IntN(2) == 0 {
		e.Type = coterie.EventDelete
	}
	return e
}

func answerOf(id int64, w *coterie.WatchResponse, cache *eventCache) *watchAnswer {
	a := &watchAnswer{events: cache}
	a.add(id, w)
	return a
}

func TestEventsAreEncodedOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := randomResponse{rand.New(rand.NewPCG(seed, 0))}
	cache := new(eventCache)
	for range 2000 {
		w := &coterie.WatchResponse{Header: r.header()}
		for range 1 + r.IntN(3) {
			w.Events = append(w.Events, r.event())
		}
		for id := range int64(3) { // the second and the third time, some events are in the cache
			want, err := proto.MarshalOptions{Deterministic: true}.Marshal(&pb.WatchResponse{
				Header: header(w.Header), WatchId: id, Events: events(w.Events),
			})
			require.NoError(t, err)
			got, err := newCodec().Marshal(answerOf(id, w, cache))
			require.NoError(t, err)
			require.Equal(t, want, got.Materialize())
		}
	}
	e := coterie.Event{KV: coterie.KeyValue{Key: "key", Value: strings.Repeat("v", 256), ModRevision: 7, Version: 1}}
	first := cache.encoded(&e)
	again := e
	require.Same(t, &first[0], &cache.encoded(&again)[0])
	again.PrevKV = &coterie.KeyValue{Key: "key", Value: "w", ModRevision: 6}
	require.NotEqual(t, first, cache.encoded(&again), "a watch with previous versions gets another encoding")
}

func TestLargeValuesAreNotCopied(t *testing.T) {
	large := strings.Repeat("v", 1<<20)
	r := &coterie.GetResponse{KVs: []coterie.KeyValue{{Key: "a", Value: large}, {Key: "b", Value: large}}, Count: 2}
	require.Less(t, testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			m := encode((*getAnswer)(r))
			m.Free()
		}
	}).AllocedBytesPerOp(), int64(1<<10))
	var back pb.RangeResponse
	require.NoError(t, newCodec().Unmarshal(encode((*getAnswer)(r)), &back))
	require.Equal(t, large, string(back.Kvs[1].Value))
}
