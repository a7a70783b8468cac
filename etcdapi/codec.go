// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/coterie-kv/coterie"
)

// A codec is the codec of Serve's gRPC server. It encodes responses in coterie's own form, and leaves all other
// messages to the codec of gRPC.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(encodable); ok {
		return encode(m), nil
	}
	return c.CodecV2.Marshal(v)
}

// The responses that are encoded without messages of package etcdserverpb: those of the calls that clients make most.
type (
	putAnswer    coterie.PutResponse
	getAnswer    coterie.GetResponse
	deleteAnswer coterie.DeleteResponse
	txnAnswer    coterie.TxnResponse
)

func (r *putAnswer) encode(e *encoder)    { e.put((*coterie.PutResponse)(r)) }
func (r *getAnswer) encode(e *encoder)    { e.get((*coterie.GetResponse)(r)) }
func (r *deleteAnswer) encode(e *encoder) { e.delete((*coterie.DeleteResponse)(r)) }
func (r *txnAnswer) encode(e *encoder)    { e.txn(&r.Header, (*coterie.TxnResponse)(r)) }

// A rangePiece is a response of a RangeStream. Only the last one has a header.
type rangePiece struct {
	of   *coterie.GetResponse
	last bool
}

func (r *rangePiece) encode(e *encoder) {
	m := e.begin(1)
	if r.last {
		e.get(r.of)
	} else {
		e.keyValues(2, r.of.KVs)
	}
	e.end(m)
}
