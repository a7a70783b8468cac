// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"sync"
	"unsafe"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/coterie-kv/coterie"
)

// sharedBytes is the size from which a value is not copied into a message: the message refers to the memory of the store.
// So many clients that read the same large values slowly cost the memory of one copy.
const sharedBytes = 4 << 10

// An encoder encodes a message of etcd's protocol from the types of coterie, without messages of package etcdserverpb in
// between. The fields are in the order of their numbers, and fields with zero values are absent, as in the encoding of
// package proto.
//
// A message is encoded twice by the same function: first without a buffer, to measure it and its parts, and then into a
// buffer of that size.
type encoder struct {
	lengths []int // of the embedded messages, in the order of their beginning
	next    int   // the first length that was not used

	measured int  // bytes; only while measuring
	own      int  // the measured bytes that are not shared
	writing  bool // whether this is the second call

	buf  []byte          // all bytes that are not shared
	from int             // the first byte of buf that is not in out
	out  mem.BufferSlice // the message up to from
}

// An encodable is a response in coterie's own form.
type encodable interface{ encode(*encoder) }

var encoders = sync.Pool{New: func() any { return new(encoder) }}

// encode returns a response as a message.
func encode(r encodable) mem.BufferSlice {
	e := encoders.Get().(*encoder)
	defer e.release()
	r.encode(e)
	e.writing = true
	if shared := e.measured > e.own; shared || mem.IsBelowBufferPoolingThreshold(e.own) {
		e.buf = make([]byte, 0, e.own)
		r.encode(e)
		return e.flush()
	}
	pool := mem.DefaultBufferPool()
	pooled := pool.Get(e.own)
	e.buf = (*pooled)[:0]
	r.encode(e)
	return mem.BufferSlice{mem.NewBuffer(pooled, pool)}
}

// encodedSize returns the size of a response as a message.
func encodedSize(r encodable) int {
	e := encoders.Get().(*encoder)
	defer e.release()
	r.encode(e)
	return e.measured
}

// maxKeptLengths bounds the memory that an encoder keeps.
const maxKeptLengths = 1024

// release returns an encoder to the pool, without the message.
func (e *encoder) release() {
	if cap(e.lengths) > maxKeptLengths {
		e.lengths = nil
	}
	*e = encoder{lengths: e.lengths[:0]}
	encoders.Put(e)
}

// flush moves the bytes that were written to the message.
func (e *encoder) flush() mem.BufferSlice {
	if e.from < len(e.buf) {
		e.out = append(e.out, mem.SliceBuffer(e.buf[e.from:len(e.buf):len(e.buf)]))
		e.from = len(e.buf)
	}
	return e.out
}

// varint writes a number.
func (e *encoder) varint(field protowire.Number, v uint64) {
	switch {
	case v == 0:
	case e.writing:
		e.buf = protowire.AppendVarint(protowire.AppendTag(e.buf, field, protowire.VarintType), v)
	default:
		e.grow(protowire.SizeTag(field) + protowire.SizeVarint(v))
	}
}

func (e *encoder) int(field protowire.Number, v int64) { e.varint(field, uint64(v)) }

func (e *encoder) bool(field protowire.Number, v bool) {
	if v {
		e.varint(field, 1)
	}
}

// text writes a key, or a value.
func (e *encoder) text(field protowire.Number, s string) {
	switch {
	case s == "":
	case e.writing:
		e.buf = protowire.AppendVarint(protowire.AppendTag(e.buf, field, protowire.BytesType), uint64(len(s)))
		if len(s) < sharedBytes {
			e.buf = append(e.buf, s...)
			return
		}
		e.flush()
		e.out = append(e.out, mem.SliceBuffer(unsafe.Slice(unsafe.StringData(s), len(s)))) // gRPC does not write to it
	default:
		e.grow(protowire.SizeTag(field) + protowire.SizeVarint(uint64(len(s))))
		if len(s) < sharedBytes {
			e.grow(len(s))
		} else {
			e.measured += len(s)
		}
	}
}

// copiedBytes is the size up to which fields that are already encoded are copied, because a reference costs more.
const copiedBytes = 1 << 10

// raw writes fields that are already encoded. It copies small ones; the message refers to large ones.
func (e *encoder) raw(fields []byte) {
	switch {
	case len(fields) <= copiedBytes && e.writing:
		e.buf = append(e.buf, fields...)
	case len(fields) <= copiedBytes:
		e.grow(len(fields))
	case e.writing:
		e.flush()
		e.out = append(e.out, mem.SliceBuffer(fields))
	default:
		e.measured += len(fields)
	}
}

func (e *encoder) grow(n int) {
	e.measured += n
	e.own += n
}

// begin begins an embedded message, which is present even if it is empty. end takes the result.
func (e *encoder) begin(field protowire.Number) (mark int) {
	if e.writing {
		n := e.lengths[e.next]
		e.next++
		e.buf = protowire.AppendVarint(protowire.AppendTag(e.buf, field, protowire.BytesType), uint64(n))
		return 0
	}
	e.grow(protowire.SizeTag(field))
	mark = len(e.lengths)
	e.lengths = append(e.lengths, e.measured)
	return mark
}

func (e *encoder) end(mark int) {
	if e.writing {
		return
	}
	e.lengths[mark] = e.measured - e.lengths[mark]
	e.grow(protowire.SizeVarint(uint64(e.lengths[mark])))
}

// The messages of etcd.

func (e *encoder) header(h *coterie.Header) {
	m := e.begin(1)
	e.varint(1, uint64(h.ClusterID))
	e.varint(2, uint64(h.MemberID))
	e.int(3, h.Revision)
	e.varint(4, h.Term)
	e.end(m)
}

func (e *encoder) keyValue(field protowire.Number, kv *coterie.KeyValue) {
	m := e.begin(field)
	e.text(1, kv.Key)
	e.int(2, kv.CreateRevision)
	e.int(3, kv.ModRevision)
	e.int(4, kv.Version)
	e.text(5, kv.Value)
	e.int(6, int64(kv.Lease))
	e.end(m)
}

func (e *encoder) keyValues(field protowire.Number, kvs []coterie.KeyValue) {
	for i := range kvs {
		e.keyValue(field, &kvs[i])
	}
}

func (e *encoder) put(r *coterie.PutResponse) {
	e.header(&r.Header)
	if r.PrevKV != nil {
		e.keyValue(2, r.PrevKV)
	}
}

func (e *encoder) get(r *coterie.GetResponse) {
	e.header(&r.Header)
	e.keyValues(2, r.KVs)
	e.bool(3, r.More)
	e.int(4, r.Count)
}

func (e *encoder) delete(r *coterie.DeleteResponse) {
	e.header(&r.Header)
	e.int(2, r.Deleted)
	e.keyValues(3, r.PrevKVs)
}

func (e *encoder) txn(h *coterie.Header, r *coterie.TxnResponse) {
	e.header(h)
	e.bool(2, r.Succeeded)
	for i := range r.Responses {
		m := e.begin(3)
		e.op(&r.Responses[i])
		e.end(m)
	}
}

func (e *encoder) op(r *coterie.OpResponse) {
	switch {
	case r.Get != nil:
		m := e.begin(1)
		e.get(r.Get)
		e.end(m)
	case r.Put != nil:
		m := e.begin(2)
		e.put(r.Put)
		e.end(m)
	case r.Delete != nil:
		m := e.begin(3)
		e.delete(r.Delete)
		e.end(m)
	default:
		m := e.begin(4)
		e.txn(&coterie.Header{}, r.Txn) // etcd leaves the header of a nested transaction empty
		e.end(m)
	}
}

func (e *encoder) event(field protowire.Number, v *coterie.Event) {
	m := e.begin(field)
	e.bool(1, v.Type == coterie.EventDelete) // DELETE is 1
	e.keyValue(2, &v.KV)
	if v.PrevKV != nil {
		e.keyValue(3, v.PrevKV)
	}
	e.end(m)
}
