// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"bytes"
	"cmp"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// An outcome is the answer to a request.
type outcome struct {
	resp proto.Message // normal
	err  error
}

// text returns an outcome as text. Equal outcomes have equal texts.
func (o outcome) text() string {
	if status.Code(o.err) == codes.DeadlineExceeded {
		return "error DeadlineExceeded" // with a text of the client, or of the server
	}
	if o.err != nil {
		return "error " + status.Code(o.err).String() + ": " + status.Convert(o.err).Message()
	}
	return prototext.Format(o.resp)
}

func sameOutcome(a, b outcome) bool {
	if a.err != nil || b.err != nil {
		return a.err != nil && b.err != nil && a.text() == b.text()
	}
	return proto.Equal(a.resp, b.resp)
}

// explained reports whether docs/etcd-parity.md explains why the outcomes of a request differ.
func explained(q proto.Message, etcd, node outcome) bool {
	// For a malformed request with an invalid token, etcd reports the request, and a node reports the token.
	if code := status.Code(etcd.err); code == codes.InvalidArgument || code == codes.Unimplemented {
		if hasError(node.err, rpctypes.ErrGRPCInvalidAuthToken) {
			return true
		}
	}
	// A transaction without compares and operations needs no permission, and etcd rejects it if the token is old.
	txn, _ := q.(*pb.TxnRequest)
	return txn != nil && len(txn.Compare)+len(txn.Success)+len(txn.Failure) == 0 && node.err == nil &&
		hasError(etcd.err, rpctypes.ErrGRPCAuthOldRevision)
}

func hasError(err, is error) bool {
	return err != nil && status.Convert(err).Message() == status.Convert(is).Message()
}

// normalize removes the parts of a response that always differ.
func normalize(resp proto.Message) proto.Message {
	if r, ok := resp.(interface{ GetHeader() *pb.ResponseHeader }); ok && r.GetHeader() != nil {
		h := r.GetHeader()
		// Only the presence of the IDs and the term is comparable.
		h.ClusterId, h.MemberId, h.RaftTerm = present(h.ClusterId), present(h.MemberId), present(h.RaftTerm)
	}
	switch r := resp.(type) {
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(r.Keys, bytes.Compare) // etcd's have no order
		if r.TTL > 2 {
			r.TTL = r.GrantedTTL // the time between the requests
		}
	case *pb.LeaseLeasesResponse:
		slices.SortFunc(r.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	case *pb.MemberListResponse:
		normalizeMembers(r.Members)
	case *pb.MemberAddResponse:
		normalizeMembers([]*pb.Member{r.Member})
		normalizeMembers(r.Members)
	case *pb.MemberRemoveResponse:
		normalizeMembers(r.Members)
	case *pb.MemberUpdateResponse:
		normalizeMembers(r.Members)
	case *pb.MemberPromoteResponse:
		normalizeMembers(r.Members)
	case *pb.StatusResponse:
		normalizeStatus(r)
	case *pb.HashKVResponse:
		r.Hash = 0
	case *pb.HashResponse:
		r.Hash = 0
	}
	return resp
}

// normalizeMembers keeps the comparable parts of members: whether they have an ID, a name and client URLs, whether they
// are learners, and the peer URLs of learners.
func normalizeMembers(members []*pb.Member) {
	for _, m := range members {
		m.ID = present(m.ID)
		if !m.IsLearner {
			m.Name, m.PeerURLs, m.ClientURLs = "", nil, nil
		}
	}
	slices.SortFunc(members, func(a, b *pb.Member) int { return cmp.Compare(a.String(), b.String()) })
}

// normalizeStatus replaces the sizes and the indexes of a status, which always differ, with whether they are valid.
func normalizeStatus(r *pb.StatusResponse) {
	valid := present(r.Leader) == r.Header.MemberId && present(r.RaftTerm) == r.Header.RaftTerm &&
		0 < r.RaftAppliedIndex && r.RaftAppliedIndex <= r.RaftIndex && 0 < r.DbSizeInUse && r.DbSizeInUse <= r.DbSize
	r.Leader, r.RaftTerm, r.RaftIndex, r.RaftAppliedIndex, r.DbSize, r.DbSizeInUse, r.DbSizeQuota = 0, 0, 0, 0, 0, 0, 0
	if valid {
		r.Leader = 1
	}
}

func present(n uint64) uint64 { return min(n, 1) }
