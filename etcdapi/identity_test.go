// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"errors"
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

// requests are valid requests of the methods that reject an empty request before they check the caller.
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
	"Auth/UserGet":             &pb.AuthUserGetRequest{Name: "root"},
	"Auth/RoleGet":             &pb.AuthRoleGetRequest{Role: "root"},
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

// eachMethod calls every method of every service, and passes the error to a function.
func eachMethod(t *testing.T, call func(method string, request proto.Message) (proto.Message, error), ended func(method string, err error)) {
	for _, service := range services {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(service)
		require.NoError(t, err)
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			m := methods.Get(i)
			name := string(service.Name()) + "/" + string(m.Name())
			request := newMessage(t, m.Input())
			if r := requests[name]; r != nil {
				request = proto.Clone(r)
			}
			_, err := call(name, request)
			ended(name, err)
		}
	}
}

func newMessage(t testing.TB, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	m, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	require.NoError(t, err)
	return m.New().Interface()
}

// callMethod calls a method over gRPC, and returns the first answer.
func callMethod(t testing.TB, ctx context.Context, conn grpc.ClientConnInterface, method string, request proto.Message) (proto.Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	m := findMethod(t, method)
	response := newMessage(t, m.Output())
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	if !m.IsStreamingServer() {
		return response, conn.Invoke(ctx, path, request, response)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: m.IsStreamingClient()}, path)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) { // RecvMsg has the reason
		return nil, err
	}
	if !m.IsStreamingClient() {
		require.NoError(t, stream.CloseSend())
	}
	if err := stream.RecvMsg(response); err != nil {
		return nil, err
	}
	return response, watchError(response)
}

// A reason is the text of the error in the answer to a watch.
type reason struct{ text string }

func (r *reason) Error() string { return r.text }

// hasNoCode reports whether the errors of a method have no code, as in etcd.
func hasNoCode(method string) bool {
	return strings.HasPrefix(method, "Lock/") || strings.HasPrefix(method, "Election/")
}

// inGateway reports whether a method has a path in the gateway.
func inGateway(t *testing.T, method string) bool { return pathOf(t, findMethod(t, method)) != "" }

func TestCallsWithoutCredentialsFail(t *testing.T) {
	n, addr := protected(t)
	before := n.Header().Revision
	callers(t, addr, func(t *testing.T, call caller) {
		eachMethod(t, func(method string, request proto.Message) (proto.Message, error) {
			if strings.HasSuffix(t.Name(), "JSON") && !inGateway(t, method) {
				return nil, errNotInGateway
			}
			return call("", method, request)
		}, func(method string, err error) {
			switch {
			case errors.Is(err, errNotInGateway):
			case method == "Auth/AuthStatus", strings.HasPrefix(method, "Health/"):
				require.NoError(t, err, method)
			case method == "Auth/Authenticate":
				requireError(t, codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", err)
			case method == "Election/Observe":
				require.ErrorIs(t, err, io.EOF) // as in etcd, which gives no reason
			case method == "Watch/Watch":
				require.EqualError(t, err, "rpc error: code = InvalidArgument desc = etcdserver: user name is empty")
			default:
				if !hasNoCode(method) {
					require.Equal(t, codes.InvalidArgument, status.Code(err), "%s: %v", method, err)
				}
				require.Equal(t, "etcdserver: user name is empty", status.Convert(err).Message(), method)
			}
		})
	})
	require.Equal(t, before, n.Header().Revision)
}

var errNotInGateway = errors.New("the gateway does not have the method")

func TestCallsWithAnInvalidTokenFail(t *testing.T) {
	_, addr := protected(t)
	for _, key := range []string{"token", "authorization"} {
		for _, token := range []string{"", "x", "Bearer x.y"} {
			ctx, conn := metadata.AppendToOutgoingContext(t.Context(), key, token), dial(t, addr)
			eachMethod(t, func(method string, request proto.Message) (proto.Message, error) {
				return callMethod(t, ctx, conn, method, request)
			}, func(method string, err error) {
				switch {
				case strings.HasPrefix(method, "Health/"):
					require.NoError(t, err, method)
				case method == "Auth/Authenticate":
					requireError(t, codes.InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", err)
				case method == "Watch/Watch":
					require.EqualError(t, err, "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token")
				default:
					require.Equal(t, codes.Unauthenticated, status.Code(err), "%s: %v", method, err)
					require.Equal(t, "etcdserver: invalid auth token", status.Convert(err).Message(), method)
				}
			})
		}
	}
}

// A user with permissions on keys has no permissions of an administrator.
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
	ctx, conn := as(t, addr, "alice"), dial(t, addr)
	eachMethod(t, func(method string, request proto.Message) (proto.Message, error) {
		return callMethod(t, ctx, conn, method, request)
	}, func(method string, err error) {
		text := status.Convert(err).Message()
		if denied[method] {
			require.Equal(t, codes.PermissionDenied, status.Code(err), "%s: %v", method, err)
			require.Equal(t, "etcdserver: permission denied", text, method)
			return
		}
		require.NotEqual(t, codes.PermissionDenied, status.Code(err), method)
		require.NotContains(t, text, "permission", method)
	})
	for _, action := range []pb.AlarmRequest_AlarmAction{pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE, 7} {
		for _, kind := range []pb.AlarmType{pb.AlarmType_NONE, pb.AlarmType_CORRUPT} { // there is no alarm of kind NONE
			_, err := pb.NewMaintenanceClient(conn).Alarm(ctx, &pb.AlarmRequest{Action: action, Alarm: kind})
			requireError(t, codes.PermissionDenied, "etcdserver: permission denied", err)
		}
	}
}
