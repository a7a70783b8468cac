// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/status"

	"github.com/coterie-kv/coterie/etcdapi"
)

// everyCall sends a valid request of every method that needs a right. Those of the user u1 are over the keys from "b" to "c",
// and to write "a"; the lease 77 has the key "z".
func everyCall() request {
	return scripted("everyCall", &pb.StatusRequest{}, func(ctx context.Context, e *endpoint, s *script) {
		key, z := []byte("z"), &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("z")}}}
		ask(ctx, s, e.kv.Range, &pb.RangeRequest{Key: key})
		ask(ctx, s, e.kv.Range, &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("c")})
		ask(ctx, s, e.kv.Range, &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("c\x00")})
		ask(ctx, s, e.kv.Range, &pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte{0}})
		stream, err := e.kv.RangeStream(ctx, &pb.RangeRequest{Key: key})
		receive(s, stream, err)
		ask(ctx, s, e.kv.Put, &pb.PutRequest{Key: key})
		ask(ctx, s, e.kv.Put, &pb.PutRequest{Key: []byte("a")})
		ask(ctx, s, e.kv.Put, &pb.PutRequest{Key: []byte("a"), PrevKv: true}) // needs READ
		ask(ctx, s, e.kv.Put, &pb.PutRequest{Key: []byte("a"), Lease: 77})    // needs WRITE on "z"
		ask(ctx, s, e.kv.DeleteRange, &pb.DeleteRangeRequest{Key: key})
		ask(ctx, s, e.kv.DeleteRange, &pb.DeleteRangeRequest{Key: []byte("a"), PrevKv: true})
		ask(ctx, s, e.kv.Txn, &pb.TxnRequest{Success: []*pb.RequestOp{z}})
		ask(ctx, s, e.kv.Txn, &pb.TxnRequest{Failure: []*pb.RequestOp{z}})
		ask(ctx, s, e.kv.Txn, &pb.TxnRequest{Compare: []*pb.Compare{{Key: key}}})
		nested := &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Failure: []*pb.RequestOp{z}}}}
		ask(ctx, s, e.kv.Txn, &pb.TxnRequest{Success: []*pb.RequestOp{nested}})
		ask(ctx, s, e.kv.Txn, &pb.TxnRequest{})
		ask(ctx, s, e.kv.Compact, &pb.CompactionRequest{Revision: 1 << 40})
		watch, err := e.watch.Watch(ctx)
		if err == nil {
			err = sent(watch.Send(createWatch(&pb.WatchCreateRequest{Key: key})))
		}
		receive(s, watch, err)
		ask(ctx, s, e.lease.LeaseGrant, &pb.LeaseGrantRequest{TTL: 5000, ID: 77})
		ask(ctx, s, e.lease.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: 77})
		ask(ctx, s, e.lease.LeaseTimeToLive, &pb.LeaseTimeToLiveRequest{ID: 77, Keys: true})
		ask(ctx, s, e.lease.LeaseLeases, &pb.LeaseLeasesRequest{})
		ask(ctx, s, e.lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: 77})
		renewals, err := e.lease.LeaseKeepAlive(ctx)
		if err == nil {
			err = sent(renewals.Send(&pb.LeaseKeepAliveRequest{ID: 77}))
		}
		receive(s, renewals, err)
		ask(ctx, s, e.cluster.MemberAdd, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:9"}})
		ask(ctx, s, e.cluster.MemberList, &pb.MemberListRequest{})
		ask(ctx, s, e.cluster.MemberList, &pb.MemberListRequest{Linearizable: true})
		ask(ctx, s, e.cluster.MemberUpdate, &pb.MemberUpdateRequest{ID: 1, PeerURLs: []string{"http://127.0.0.1:9"}})
		ask(ctx, s, e.cluster.MemberPromote, &pb.MemberPromoteRequest{ID: 1})
		ask(ctx, s, e.cluster.MemberRemove, &pb.MemberRemoveRequest{ID: 1})
		ask(ctx, s, e.maintenance.Alarm, &pb.AlarmRequest{})
		ask(ctx, s, e.maintenance.Alarm, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE})
		ask(ctx, s, e.maintenance.Status, &pb.StatusRequest{})
		ask(ctx, s, e.maintenance.Defragment, &pb.DefragmentRequest{})
		ask(ctx, s, e.maintenance.Hash, &pb.HashRequest{})
		ask(ctx, s, e.maintenance.HashKV, &pb.HashKVRequest{Revision: 1 << 40})
		ask(ctx, s, e.maintenance.MoveLeader, &pb.MoveLeaderRequest{TargetID: 1})
		ask(ctx, s, e.maintenance.Downgrade, &pb.DowngradeRequest{Version: "1.0"})
		snapshot, err := e.maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
		if err == nil {
			_, err = snapshot.Recv()
		}
		s.say(err)
		ask(ctx, s, e.auth.AuthStatus, &pb.AuthStatusRequest{})
		ask(ctx, s, e.auth.AuthEnable, &pb.AuthEnableRequest{})
		ask(ctx, s, e.auth.UserAdd, &pb.AuthUserAddRequest{Name: "u1", Password: "p"})
		ask(ctx, s, e.auth.UserGet, &pb.AuthUserGetRequest{Name: "u1"})
		ask(ctx, s, e.auth.UserGet, &pb.AuthUserGetRequest{Name: "root"})
		ask(ctx, s, e.auth.UserList, &pb.AuthUserListRequest{})
		ask(ctx, s, e.auth.UserDelete, &pb.AuthUserDeleteRequest{Name: "root"})
		ask(ctx, s, e.auth.UserChangePassword, &pb.AuthUserChangePasswordRequest{Name: "none", Password: "p"})
		ask(ctx, s, e.auth.UserGrantRole, &pb.AuthUserGrantRoleRequest{User: "none", Role: "r1"})
		ask(ctx, s, e.auth.UserRevokeRole, &pb.AuthUserRevokeRoleRequest{Name: "none", Role: "r1"})
		ask(ctx, s, e.auth.RoleAdd, &pb.AuthRoleAddRequest{Name: "r1"})
		ask(ctx, s, e.auth.RoleGet, &pb.AuthRoleGetRequest{Role: "r1"})
		ask(ctx, s, e.auth.RoleGet, &pb.AuthRoleGetRequest{Role: "root"})
		ask(ctx, s, e.auth.RoleList, &pb.AuthRoleListRequest{})
		ask(ctx, s, e.auth.RoleDelete, &pb.AuthRoleDeleteRequest{Role: "none"})
		ask(ctx, s, e.auth.RoleGrantPermission, &pb.AuthRoleGrantPermissionRequest{Name: "none", Perm: &authpb.Permission{Key: key}})
		ask(ctx, s, e.auth.RoleRevokePermission, &pb.AuthRoleRevokePermissionRequest{Role: "none", Key: key})
	})
}

// methodsOfRoot need the role root.
var methodsOfRoot = []string{
	"Compact", "MemberAdd", "MemberUpdate", "MemberPromote", "MemberRemove", "Defragment", "Hash", "HashKV", "MoveLeader", "Downgrade",
	"Snapshot", "AuthEnable", "UserAdd", "UserList", "UserDelete", "UserChangePassword", "UserGrantRole", "UserRevokeRole",
	"RoleAdd", "RoleList", "RoleDelete", "RoleGrantPermission", "RoleRevokePermission",
}

// Every method rejects a call without a user, with an invalid token or of a user without the right as it does in etcd.
func TestSameAnswersWithoutRights(t *testing.T) {
	etcd := dialCovered(t, startEtcd(t, cheap))
	c := newComparison(t, etcd, dial(t, "coterie", startNode(t, etcdapi.WithBcryptCost(bcrypt.MinCost))))
	c.users = &users{secrets: map[string]string{}}
	c.protect()
	for _, r := range []request{
		to("LeaseGrant", &pb.LeaseGrantRequest{TTL: 5000, ID: 77}, lease, pb.LeaseClient.LeaseGrant),
		to("Put", &pb.PutRequest{Key: []byte("z"), Lease: 77}, kv, pb.KVClient.Put),
		to("UserAdd", &pb.AuthUserAddRequest{Name: "u1", Password: "p1"}, auth, pb.AuthClient.UserAdd),
		to("RoleAdd", &pb.AuthRoleAddRequest{Name: "r1"}, auth, pb.AuthClient.RoleAdd),
		to("UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "u1", Role: "r1"}, auth, pb.AuthClient.UserGrantRole),
		grantPermission(authpb.Permission_READ, []byte("b"), []byte("c")), grantPermission(authpb.Permission_WRITE, []byte("a"), nil),
		c.authenticate("u1", "p1"),
	} {
		c.doAs(c.rootUser(), r)
	}
	for _, user := range []string{noUser, badToken, c.users.labels[len(c.users.labels)-1]} {
		c.doAs(user, everyCall())
	}
	for _, method := range methodsOfRoot {
		for _, err := range []error{rpctypes.ErrGRPCUserEmpty, rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCPermissionDenied} {
			text := status.Code(err).String() + ": " + status.Convert(err).Message()
			assert.Positive(t, etcd.coverage.counts[class{method, "error", text}], "%s: %s", method, text)
		}
	}
}
