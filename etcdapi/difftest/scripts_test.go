// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A script sends several requests that belong together. Its outcome is everything that was answered.
type script struct{ said []string }

func note[R proto.Message](s *script, r R, err error) R {
	if err == nil {
		normalize(r)
	}
	s.said = append(s.said, outcome{r, err}.text())
	return r
}

func scripted(name string, play func(ctx context.Context, e *endpoint, s *script)) request {
	return request{name: name, pb: &pb.StatusRequest{}, send: func(ctx context.Context, e *endpoint) (proto.Message, error) {
		s := &script{}
		play(ctx, e, s)
		return wrapperspb.String(strings.Join(s.said, "\n")), nil
	}}
}

// shortLease grants a lease that would end soon, and revokes it.
func (g *generator) shortLease() request {
	q := &pb.LeaseGrantRequest{ID: pick[int64](g, 0, 1000, -5), TTL: pick[int64](g, -1<<62, -1, 0, 1, 2, 3)}
	return scripted("short lease "+q.String(), func(ctx context.Context, e *endpoint, s *script) {
		r, err := e.lease.LeaseGrant(ctx, q)
		id := r.GetID()
		if q.ID == 0 && id > 0 {
			r.ID = 1 // the servers draw them
		}
		note(s, r, err)
		renew := func() {
			stream, err := e.lease.LeaseKeepAlive(ctx)
			if err == nil {
				err = stream.Send(&pb.LeaseKeepAliveRequest{ID: id})
			}
			var renewed *pb.LeaseKeepAliveResponse
			if err == nil {
				renewed, err = stream.Recv()
			}
			if err == nil {
				renewed.ID = q.ID
				err = stream.CloseSend()
			}
			note(s, renewed, err)
		}
		renew()
		revoked, err := e.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
		note(s, revoked, err)
		renew()
	})
}

// withLease grants a lease, and revokes it after the rest of a script.
func withLease(ctx context.Context, e *endpoint, s *script, id int64, rest func()) {
	r, err := e.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 5000})
	note(s, r, err)
	rest()
	revoked, err := e.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	note(s, revoked, err)
}

func (g *generator) lock() request {
	name, missing := []byte(pick(g, "lock", "a")), g.chance(5)
	return scripted("lock "+string(name), func(ctx context.Context, e *endpoint, s *script) {
		withLease(ctx, e, s, 2000, func() {
			id := int64(2000)
			if missing {
				id++
			}
			held, err := e.lock.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: id})
			note(s, held, err)
			again, err := e.lock.Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: id})
			note(s, again, err)
			freed, err := e.lock.Unlock(ctx, &v3lockpb.UnlockRequest{Key: held.GetKey()})
			note(s, freed, err)
		})
	})
}

func (g *generator) election() request {
	name, resigns := []byte(pick(g, "election", "a")), g.chance(2)
	return scripted("election "+string(name), func(ctx context.Context, e *endpoint, s *script) {
		leader := func() {
			r, err := e.election.Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
			note(s, r, err)
		}
		leader()
		withLease(ctx, e, s, 3000, func() {
			won, err := e.election.Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: 3000, Value: []byte("v")})
			note(s, won, err)
			leader()
			stream, err := e.election.Observe(ctx, &v3electionpb.LeaderRequest{Name: name})
			var seen *v3electionpb.LeaderResponse
			if err == nil {
				seen, err = stream.Recv()
			}
			note(s, seen, err)
			told, err := e.election.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: won.GetLeader(), Value: []byte("w")})
			note(s, told, err)
			if resigns {
				gone, err := e.election.Resign(ctx, &v3electionpb.ResignRequest{Leader: won.GetLeader()})
				note(s, gone, err)
				told, err := e.election.Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: won.GetLeader(), Value: []byte("w")})
				note(s, told, err)
			}
			none, err := e.election.Proclaim(ctx, &v3electionpb.ProclaimRequest{})
			note(s, none, err)
		})
		leader()
	})
}

// state asks for everything about the server that is comparable.
func (g *generator) state() request {
	return scripted("state", func(ctx context.Context, e *endpoint, s *script) {
		status, err := e.maintenance.Status(ctx, &pb.StatusRequest{})
		if err == nil {
			if status.Leader != status.Header.MemberId || status.RaftTerm != status.Header.RaftTerm || status.RaftAppliedIndex > status.RaftIndex ||
				status.RaftAppliedIndex == 0 || status.DbSizeInUse > status.DbSize || status.DbSizeInUse <= 0 {
				s.said = append(s.said, "WRONG: "+status.String())
			}
			status.Leader, status.RaftTerm, status.RaftIndex, status.RaftAppliedIndex = 0, 0, 0, 0
			status.DbSize, status.DbSizeInUse, status.DbSizeQuota = 0, 0, 0
		}
		note(s, status, err)
		members, err := e.cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		if err == nil {
			for i, m := range members.Members {
				members.Members[i] = &pb.Member{ID: present(m.ID), IsLearner: m.IsLearner}
			}
		}
		note(s, members, err)
		alone, err := e.cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: status.GetHeader().GetMemberId()})
		note(s, alone, err)
		g.authState(ctx, e, s)
		hash, err := e.maintenance.Hash(ctx, &pb.HashRequest{})
		note(s, hash, err)
	})
}

// authState sends the requests about users and roles that change nothing as long as there are none.
func (g *generator) authState(ctx context.Context, e *endpoint, s *script) {
	status, err := e.auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
	note(s, status, err)
	token, err := e.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "a", Password: "b"})
	note(s, token, err)
	enabled, err := e.auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
	note(s, enabled, err)
	users, err := e.auth.UserList(ctx, &pb.AuthUserListRequest{})
	note(s, users, err)
	roles, err := e.auth.RoleList(ctx, &pb.AuthRoleListRequest{})
	note(s, roles, err)
	user, err := e.auth.UserGet(ctx, &pb.AuthUserGetRequest{Name: "a"})
	note(s, user, err)
	role, err := e.auth.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: "a"})
	note(s, role, err)
	added, err := e.auth.UserAdd(ctx, &pb.AuthUserAddRequest{})
	note(s, added, err)
	made, err := e.auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{})
	note(s, made, err)
	gone, err := e.auth.UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: "a"})
	note(s, gone, err)
	dropped, err := e.auth.RoleDelete(ctx, &pb.AuthRoleDeleteRequest{Role: "a"})
	note(s, dropped, err)
	changed, err := e.auth.UserChangePassword(ctx, &pb.AuthUserChangePasswordRequest{Name: "a", Password: "b"})
	note(s, changed, err)
	granted, err := e.auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "a", Role: "b"})
	note(s, granted, err)
	revoked, err := e.auth.UserRevokeRole(ctx, &pb.AuthUserRevokeRoleRequest{Name: "a", Role: "b"})
	note(s, revoked, err)
	allowed, err := e.auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "a", Perm: &authpb.Permission{Key: []byte("k")}})
	note(s, allowed, err)
	nothing, err := e.auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "a"})
	note(s, nothing, err)
	denied, err := e.auth.RoleRevokePermission(ctx, &pb.AuthRoleRevokePermissionRequest{Role: "a", Key: []byte("k")})
	note(s, denied, err)
	s.said = append(s.said, fmt.Sprint("revision is present: ", status.GetHeader().GetRevision() > 0))
}

// alarm raises an alarm, meets its effect, and clears it.
func (g *generator) alarm() request {
	kind, write, lease := pick(g, pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT, pb.AlarmType_NONE), g.txn(0), g.leaseID()
	// etcd reports a key that is written twice before an alarm; with one operation there is none.
	write.Success, write.Failure = write.Success[:min(1, len(write.Success))], write.Failure[:min(1, len(write.Failure))]
	return scripted("alarm "+kind.String()+" "+write.String(), func(ctx context.Context, e *endpoint, s *script) {
		alarm := func(action pb.AlarmRequest_AlarmAction) {
			r, err := e.maintenance.Alarm(ctx, &pb.AlarmRequest{Action: action, MemberID: 7, Alarm: kind})
			note(s, r, err)
		}
		alarm(pb.AlarmRequest_ACTIVATE)
		alarm(pb.AlarmRequest_ACTIVATE)
		alarm(pb.AlarmRequest_GET)
		put, err := e.kv.Put(ctx, &pb.PutRequest{Key: []byte("a")})
		note(s, put, err)
		deleted, err := e.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("a")})
		note(s, deleted, err)
		done, err := e.kv.Txn(ctx, write)
		note(s, done, err)
		granted, err := e.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 4000, TTL: 5000})
		note(s, granted, err)
		for _, id := range []int64{4000, lease} {
			revoked, err := e.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
			note(s, revoked, err)
		}
		compacted, err := e.kv.Compact(ctx, &pb.CompactionRequest{Revision: 1 << 40})
		note(s, compacted, err)
		alarm(pb.AlarmRequest_DEACTIVATE)
		alarm(pb.AlarmRequest_DEACTIVATE)
	})
}
