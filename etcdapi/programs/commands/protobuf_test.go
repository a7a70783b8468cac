// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// responses are the messages that commands print in the format protobuf. The other commands lack the format.
var responses = map[string]proto.Message{
	"get": &pb.RangeResponse{}, "put": &pb.PutResponse{}, "del": &pb.DeleteRangeResponse{}, "txn": &pb.TxnResponse{},
	"watch": &pb.WatchResponse{}, "alarm": &pb.AlarmResponse{},
	// The program encodes the header alone.
	"lease grant": &pb.ResponseHeader{}, "lease list": &pb.ResponseHeader{}, "lease timetolive": &pb.ResponseHeader{},
	"lease keep-alive": &pb.ResponseHeader{}, "lease revoke": &pb.LeaseRevokeResponse{},
	"member list": &pb.MemberListResponse{}, "member add": &pb.MemberAddResponse{}, "member update": &pb.MemberUpdateResponse{},
	"member remove": &pb.MemberRemoveResponse{}, "member promote": &pb.MemberPromoteResponse{},
	"auth status": &pb.AuthStatusResponse{},
	"user list":   &pb.AuthUserListResponse{}, "user get": &pb.AuthUserGetResponse{}, "user add": &pb.AuthUserAddResponse{},
	"user grant-role": &pb.AuthUserGrantRoleResponse{}, "user revoke-role": &pb.AuthUserRevokeRoleResponse{},
	"user delete": &pb.AuthUserDeleteResponse{},
	"role list":   &pb.AuthRoleListResponse{}, "role get": &pb.AuthRoleGetResponse{}, "role add": &pb.AuthRoleAddResponse{},
	"role grant-permission": &pb.AuthRoleGrantPermissionResponse{}, "role revoke-permission": &pb.AuthRoleRevokePermissionResponse{},
	"role delete": &pb.AuthRoleDeleteResponse{},
}

// prompt is the last one of txn -i.
const prompt = "failure requests (get, put, del):\n"

// encoded runs a command in the format protobuf on both, and compares the messages.
func (p *pair) encoded(args ...string) {
	p.Helper()
	full := append([]string{"--write-out=protobuf"}, args...)
	r := p.compare(full, p.each(func(s *store) result {
		r := s.start(p, p.stdin, full...).wait(p)
		if r.code == 0 {
			r.stdout = decoded(p, args, r.stdout)
		}
		return r
	}))
	if r.code != 0 {
		require.Equal(p, missingFormat, r.code, "etcdctl %q: %v", full, r)
	}
}

// decoded returns the message that a command has printed as JSON, to which the masks apply.
func decoded(t testing.TB, args []string, printed string) string {
	t.Helper()
	var words []string
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			words = append(words, a)
		}
	}
	kind, ok := responses[words[0]]
	if !ok && len(words) > 1 {
		kind, ok = responses[strings.Join(words[:2], " ")]
	}
	require.True(t, ok, "the message of etcdctl %q", args)
	if i := strings.LastIndex(printed, prompt); i >= 0 {
		printed = printed[i+len(prompt):]
	}
	m := kind.ProtoReflect().New().Interface()
	require.NoError(t, proto.Unmarshal([]byte(printed), m), "etcdctl %q", args)
	require.Empty(t, m.ProtoReflect().GetUnknown(), "etcdctl %q", args)
	text, err := json.Marshal(m)
	require.NoError(t, err)
	return string(text)
}
