// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/coterie-kv/coterie"
)

// services are all services of an endpoint.
var services = []protoreflect.FullName{
	"etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease", "etcdserverpb.Cluster", "etcdserverpb.Maintenance",
	"etcdserverpb.Auth", "v3lockpb.Lock", "v3electionpb.Election", "grpc.health.v1.Health",
}

// requests are valid requests of the methods whose empty request is rejected before the caller is.
var requests = map[string]proto.Message{
	"KV/Range":                 &pb.RangeRequest{Key: []byte("a")},
	"KV/RangeStream":           &pb.RangeRequest{Key: []byte("a")},
	"KV/Put":                   &pb.PutRequest{Key: []byte("a")},
	"KV/DeleteRange":           &pb.DeleteRangeRequest{Key: []byte("a")},
	"KV/Txn":                   &pb.TxnRequest{Success: []*pb.RequestOp{putOp("a")}},
	"Watch/Watch":              &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}},
	"Cluster/MemberAdd":        &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}},
	"Cluster/MemberUpdate":     &pb.MemberUpdateRequest{PeerURLs: []string{"http://127.0.0.1:1"}},
	"Maintenance/Downgrade":    &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL},
	"Auth/UserAdd":             &pb.AuthUserAddRequest{Name: "new", Password: "new"},
	"Auth/RoleGrantPermission": &pb.AuthRoleGrantPermissionRequest{Name: "alice", Perm: &authpb.Permission{Key: []byte("k")}},
	"Lease/LeaseGrant":         &pb.LeaseGrantRequest{TTL: 60},
	"Lock/Lock":                &v3lockpb.LockRequest{Name: []byte("a")},
	"Lock/Unlock":              &v3lockpb.UnlockRequest{Key: []byte("a")},
	"Election/Campaign":        &v3electionpb.CampaignRequest{Name: []byte("a-election")},
	"Election/Proclaim":        &v3electionpb.ProclaimRequest{Leader: &v3electionpb.LeaderKey{Name: []byte("a-election"), Key: []byte("a-election/1"), Rev: 1, Lease: 1}},
	"Election/Resign":          &v3electionpb.ResignRequest{Leader: &v3electionpb.LeaderKey{Name: []byte("a-election"), Key: []byte("a-election/1"), Rev: 1, Lease: 1}},
	"Election/Leader":          &v3electionpb.LeaderRequest{Name: []byte("a-election")},
	"Election/Observe":         &v3electionpb.LeaderRequest{Name: []byte("a-election")},
}

// callEach calls every method of every service, and passes the error to a function.
func callEach(t *testing.T, ctx context.Context, conn grpc.ClientConnInterface, ended func(method string, err error)) {
	for _, service := range services {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(service)
		require.NoError(t, err)
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			m := methods.Get(i)
			name := string(service.Name()) + "/" + string(m.Name())
			ended(name, callMethod(t, ctx, conn, string(service), name, m))
		}
	}
}

func newMessage(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	m, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	require.NoError(t, err)
	return m.New().Interface()
}

func callMethod(t *testing.T, ctx context.Context, conn grpc.ClientConnInterface, service, name string, m protoreflect.MethodDescriptor) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	request, response := newMessage(t, m.Input()), newMessage(t, m.Output())
	if r := requests[name]; r != nil {
		request = proto.Clone(r)
	}
	path := "/" + service + "/" + string(m.Name())
	if !m.IsStreamingServer() {
		return conn.Invoke(ctx, path, request, response)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: m.IsStreamingClient()}, path)
	require.NoError(t, err)
	require.NoError(t, stream.SendMsg(request))
	if !m.IsStreamingClient() {
		require.NoError(t, stream.CloseSend())
	}
	err = stream.RecvMsg(response)
	if r, ok := response.(*pb.WatchResponse); ok && r.Canceled {
		require.True(t, r.Created)
		require.EqualValues(t, -1, r.WatchId)
		return &reason{r.CancelReason}
	}
	return err
}

// A reason is the text of the error in the answer to a watch.
type reason struct{ text string }

func (r *reason) Error() string { return r.text }

func TestCallsWithoutCredentialsFail(t *testing.T) {
	n, addr := protected(t)
	before := n.Header().Revision
	callEach(t, t.Context(), dial(t, addr), func(method string, err error) {
		switch method {
		case "Auth/AuthStatus", "Health/Check", "Health/List", "Health/Watch":
			require.NoError(t, err, method)
		case "Auth/Authenticate":
			requireError(t, codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", err)
		case "Election/Observe":
			require.ErrorIs(t, err, io.EOF) // as in etcd, which gives no reason
		case "Watch/Watch":
			require.EqualError(t, err, "rpc error: code = InvalidArgument desc = etcdserver: user name is empty")
		default:
			if !strings.HasPrefix(method, "Lock/") && !strings.HasPrefix(method, "Election/") { // whose errors have no code, as in etcd
				require.Equal(t, codes.InvalidArgument, status.Code(err), "%s: %v", method, err)
			}
			require.Equal(t, "etcdserver: user name is empty", status.Convert(err).Message(), method)
		}
	})
	require.Equal(t, before, n.Header().Revision)
}

func TestCallsWithAnInvalidTokenFail(t *testing.T) {
	_, addr := protected(t)
	for _, key := range []string{"token", "authorization"} {
		for _, token := range []string{"", "x", "Bearer x.y"} {
			callEach(t, metadata.AppendToOutgoingContext(t.Context(), key, token), dial(t, addr), func(method string, err error) {
				switch method {
				case "Health/Check", "Health/List", "Health/Watch":
					require.NoError(t, err, method)
				case "Auth/Authenticate":
					requireError(t, codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", err)
				case "Watch/Watch":
					require.EqualError(t, err, "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token")
				default:
					require.Equal(t, codes.Unauthenticated, status.Code(err), "%s: %v", method, err)
					require.Equal(t, "etcdserver: invalid auth token", status.Convert(err).Message(), method)
				}
			})
		}
	}
}

// A user with permissions on keys has none of those of an administrator.
func TestUsersAreNotAdministrators(t *testing.T) {
	n, addr := protected(t)
	_, err := n.Grant(t.Context(), time.Hour, coterie.WithGrantID(1))
	require.NoError(t, err)
	denied := map[string]bool{
		"KV/Compact": true, "Cluster/MemberAdd": true, "Cluster/MemberRemove": true, "Cluster/MemberUpdate": true,
		"Cluster/MemberPromote": true, "Maintenance/Defragment": true, "Maintenance/Hash": true, "Maintenance/HashKV": true,
		"Maintenance/Snapshot": true, "Maintenance/MoveLeader": true, "Maintenance/Downgrade": true,
		"Auth/AuthEnable": true, "Auth/AuthDisable": true, "Auth/UserAdd": true, "Auth/UserGet": true, "Auth/UserList": true,
		"Auth/UserDelete": true, "Auth/UserChangePassword": true, "Auth/UserGrantRole": true, "Auth/UserRevokeRole": true,
		"Auth/RoleAdd": true, "Auth/RoleGet": true, "Auth/RoleList": true, "Auth/RoleDelete": true,
		"Auth/RoleGrantPermission": true, "Auth/RoleRevokePermission": true,
	}
	callEach(t, as(t, addr, "alice"), dial(t, addr), func(method string, err error) {
		text := status.Convert(err).Message()
		if denied[method] {
			require.Equal(t, codes.PermissionDenied, status.Code(err), "%s: %v", method, err)
			require.Equal(t, "etcdserver: permission denied", text, method)
			return
		}
		require.NotEqual(t, codes.PermissionDenied, status.Code(err), method)
		require.NotContains(t, text, "permission", method)
	})
	for _, action := range []pb.AlarmRequest_AlarmAction{pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE} {
		_, err := pb.NewMaintenanceClient(dial(t, addr)).Alarm(as(t, addr, "alice"), &pb.AlarmRequest{Action: action, Alarm: pb.AlarmType_CORRUPT})
		requireError(t, codes.PermissionDenied, "etcdserver: permission denied", err)
	}
}
