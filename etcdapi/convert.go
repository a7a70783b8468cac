// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/coterie-kv/coterie"
)

// header returns a header in etcd's form.
func header(h coterie.Header) *pb.ResponseHeader {
	return &pb.ResponseHeader{
		ClusterId: uint64(h.ClusterID), MemberId: uint64(h.MemberID), Revision: h.Revision, RaftTerm: h.Term,
	}
}

// header returns the header of an answer that does not come from a call of the node.
func (s *server) header() *pb.ResponseHeader { return s.answerHeader(s.node.Header()) }

// answerHeader returns the header of an answer, made from the header of a call of the node.
func (s *server) answerHeader(h coterie.Header) *pb.ResponseHeader { return header(*s.mine(&h)) }

// mine sets the member ID of a header to that of this node in etcd's protocol.
func (s *server) mine(h *coterie.Header) *coterie.Header {
	h.MemberID = coterie.MemberID(s.selfID())
	return h
}

func keyValue(kv *coterie.KeyValue) *mvccpb.KeyValue {
	if kv == nil {
		return nil
	}
	return &mvccpb.KeyValue{
		Key: []byte(kv.Key), Value: bytes(kv.Value), CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision,
		Version: kv.Version, Lease: int64(kv.Lease),
	}
}

func keyValues(kvs []coterie.KeyValue) []*mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	out := make([]*mvccpb.KeyValue, len(kvs))
	for i := range kvs {
		out[i] = keyValue(&kvs[i])
	}
	return out
}

// bytes returns nil for an empty text, because a client gets nil over a network.
func bytes(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}

func events(list []coterie.Event) []*mvccpb.Event {
	out := make([]*mvccpb.Event, len(list))
	for i := range list {
		e := &list[i]
		out[i] = &mvccpb.Event{Kv: keyValue(&e.KV), PrevKv: keyValue(e.PrevKV)}
		if e.Type == coterie.EventDelete {
			out[i].Type = mvccpb.Event_DELETE
		}
	}
	return out
}

func putOptions(r *pb.PutRequest) (opts []coterie.PutOption) {
	if r.Lease != 0 {
		opts = append(opts, coterie.WithLease(coterie.LeaseID(r.Lease)))
	}
	if r.PrevKv {
		opts = append(opts, coterie.WithPrevKV())
	}
	if r.IgnoreValue {
		opts = append(opts, coterie.WithIgnoreValue())
	}
	if r.IgnoreLease {
		opts = append(opts, coterie.WithIgnoreLease())
	}
	return opts
}

func deleteOptions(r *pb.DeleteRangeRequest) (opts []coterie.DeleteOption) {
	if len(r.RangeEnd) > 0 {
		opts = append(opts, coterie.WithRange(string(r.RangeEnd)))
	}
	if r.PrevKv {
		opts = append(opts, coterie.WithPrevKV())
	}
	return opts
}

// scanOptions returns the options of a range that also apply to an iteration, except WithSerializable. For a range end
// of "\x00" the range has no end, in coterie as in etcd.
func scanOptions(r *pb.RangeRequest) (opts []coterie.ScanOption) {
	if len(r.RangeEnd) > 0 {
		opts = append(opts, coterie.WithRange(string(r.RangeEnd)))
	}
	if r.Limit > 0 { // a negative limit means none
		opts = append(opts, coterie.WithLimit(r.Limit))
	}
	if r.Revision != 0 {
		opts = append(opts, coterie.WithRevision(r.Revision))
	}
	return opts
}

// onlySerializable are the options of a range that has no other option. Nothing changes this slice.
var onlySerializable = []coterie.GetOption{coterie.WithSerializable()}

// getOptions returns the options of a range. It allocates nothing for the frequent ranges of one key.
func getOptions(r *pb.RangeRequest) (opts []coterie.GetOption) {
	for _, opt := range scanOptions(r) {
		opts = append(opts, opt)
	}
	if r.SortTarget != pb.RangeRequest_KEY || r.SortOrder != pb.RangeRequest_NONE {
		opts = append(opts, coterie.WithSort(sortTarget(r.SortTarget), sortOrder(r.SortOrder)))
	}
	if r.KeysOnly {
		opts = append(opts, coterie.WithKeysOnly())
	}
	if r.CountOnly {
		opts = append(opts, coterie.WithCountOnly())
	}
	for _, filter := range []struct {
		revision int64
		option   func(int64) coterie.ScanOption
	}{
		{r.MinModRevision, coterie.WithMinModRevision},
		{r.MaxModRevision, coterie.WithMaxModRevision},
		{r.MinCreateRevision, coterie.WithMinCreateRevision},
		{r.MaxCreateRevision, coterie.WithMaxCreateRevision},
	} {
		if filter.revision != 0 {
			opts = append(opts, filter.option(filter.revision))
		}
	}
	switch {
	case !r.Serializable:
		return opts
	case len(opts) == 0:
		return onlySerializable
	}
	return append(opts, coterie.WithSerializable())
}

func sortTarget(t pb.RangeRequest_SortTarget) coterie.SortTarget {
	switch t {
	case pb.RangeRequest_VERSION:
		return coterie.SortByVersion
	case pb.RangeRequest_CREATE:
		return coterie.SortByCreateRevision
	case pb.RangeRequest_MOD:
		return coterie.SortByModRevision
	case pb.RangeRequest_VALUE:
		return coterie.SortByValue
	}
	return coterie.SortByKey
}

func sortOrder(o pb.RangeRequest_SortOrder) coterie.SortOrder {
	switch o {
	case pb.RangeRequest_ASCEND:
		return coterie.SortAscend
	case pb.RangeRequest_DESCEND:
		return coterie.SortDescend
	}
	return coterie.SortNone
}

// operations returns the operations of a branch that was checked.
func operations(ops []*pb.RequestOp) []coterie.Op {
	out := make([]coterie.Op, len(ops))
	for i, op := range ops {
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			out[i] = coterie.OpGet(string(r.RequestRange.Key), getOptions(r.RequestRange)...)
		case *pb.RequestOp_RequestPut:
			out[i] = coterie.OpPut(string(r.RequestPut.Key), string(r.RequestPut.Value), putOptions(r.RequestPut)...)
		case *pb.RequestOp_RequestDeleteRange:
			out[i] = coterie.OpDelete(string(r.RequestDeleteRange.Key), deleteOptions(r.RequestDeleteRange)...)
		case *pb.RequestOp_RequestTxn:
			out[i] = txn(r.RequestTxn)
		}
	}
	return out
}

func txn(r *pb.TxnRequest) coterie.Op {
	return coterie.OpTxn(comparisons(r.Compare), operations(r.Success), operations(r.Failure))
}

func comparisons(compares []*pb.Compare) []coterie.Comparison {
	out := make([]coterie.Comparison, len(compares))
	for i, c := range compares {
		out[i] = comparison(c)
		if len(c.RangeEnd) > 0 {
			out[i] = out[i].WithRange(string(c.RangeEnd))
		}
	}
	return out
}

// comparison returns a comparison of a single key. If the request has a value for another target, the comparison is
// with 0.
func comparison(c *pb.Compare) coterie.Comparison {
	key := string(c.Key)
	op, known := map[pb.Compare_CompareResult]coterie.CompareOp{
		pb.Compare_EQUAL: coterie.Equal, pb.Compare_NOT_EQUAL: coterie.NotEqual,
		pb.Compare_LESS: coterie.Less, pb.Compare_GREATER: coterie.Greater,
	}[c.Result]
	if !known {
		return unknownOperator(c)
	}
	switch c.Target {
	case pb.Compare_VERSION:
		return coterie.Compare(coterie.Version(key), op, c.GetVersion())
	case pb.Compare_CREATE:
		return coterie.Compare(coterie.CreateRevision(key), op, c.GetCreateRevision())
	case pb.Compare_MOD:
		return coterie.Compare(coterie.ModRevision(key), op, c.GetModRevision())
	case pb.Compare_VALUE:
		return coterie.Compare(coterie.Value(key), op, string(c.GetValue()))
	case pb.Compare_LEASE:
		return coterie.Compare(coterie.LeaseValue(key), op, coterie.LeaseID(c.GetLease()))
	}
	// In etcd an unknown target is equal to everything.
	if op == coterie.Equal {
		return coterie.Compare(coterie.Version(key), coterie.Greater, -1)
	}
	return coterie.Compare(coterie.Version(key), coterie.Less, 0)
}

// unknownOperator returns a comparison that always holds, except a comparison of the value of a missing key.
func unknownOperator(c *pb.Compare) coterie.Comparison {
	least := int64(-1)
	if c.Target == pb.Compare_VALUE {
		least = 0
	}
	return coterie.Compare(coterie.Version(string(c.Key)), coterie.Greater, least)
}

func putResponse(r *coterie.PutResponse) *pb.PutResponse {
	return &pb.PutResponse{Header: header(r.Header), PrevKv: keyValue(r.PrevKV)}
}

func rangeResponse(r *coterie.GetResponse) *pb.RangeResponse {
	return &pb.RangeResponse{Header: header(r.Header), Kvs: keyValues(r.KVs), More: r.More, Count: r.Count}
}

func deleteResponse(r *coterie.DeleteResponse) *pb.DeleteRangeResponse {
	return &pb.DeleteRangeResponse{Header: header(r.Header), Deleted: r.Deleted, PrevKvs: keyValues(r.PrevKVs)}
}

func txnResponse(r *coterie.TxnResponse) *pb.TxnResponse {
	out := &pb.TxnResponse{Header: header(r.Header), Succeeded: r.Succeeded, Responses: make([]*pb.ResponseOp, len(r.Responses))}
	for i, op := range r.Responses {
		out.Responses[i] = responseOp(op)
	}
	return out
}

func responseOp(r coterie.OpResponse) *pb.ResponseOp {
	switch {
	case r.Put != nil:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: putResponse(r.Put)}}
	case r.Get != nil:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: rangeResponse(r.Get)}}
	case r.Delete != nil:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: deleteResponse(r.Delete)}}
	}
	nested := txnResponse(r.Txn)
	nested.Header = &pb.ResponseHeader{} // etcd leaves it empty
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: nested}}
}
