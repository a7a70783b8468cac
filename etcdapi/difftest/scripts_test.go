// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A script sends several requests that belong together. Its outcome is all answers.
type script struct{ said []string }

// note adds an answer to the outcome.
func note[R proto.Message](s *script, r R, err error) R {
	if err == nil {
		normalize(r)
	}
	s.said = append(s.said, outcome{r, err}.text())
	return r
}

// say adds an error to the outcome, or that there is none.
func (s *script) say(err error) { s.said = append(s.said, status.Convert(err).String()) }

// ask sends a request, and adds its answer to the outcome.
func ask[Q, R proto.Message](ctx context.Context, s *script, method func(context.Context, Q, ...grpc.CallOption) (R, error), q Q) R {
	r, err := method(ctx, q)
	return note(s, r, err)
}

// receive adds the next message of a stream to the outcome.
func receive[R proto.Message](s *script, stream interface{ Recv() (R, error) }, err error) (r R) {
	if err == nil {
		r, err = stream.Recv()
	}
	return note(s, r, err)
}

func scripted(name string, q proto.Message, play func(ctx context.Context, e *endpoint, s *script)) request {
	return request{name: name, pb: q, send: func(ctx context.Context, e *endpoint) (proto.Message, error) {
		s := &script{}
		play(ctx, e, s)
		return wrapperspb.String(strings.Join(s.said, "\n")), nil
	}}
}

// shortLease grants a lease that would end soon, and revokes it. Meanwhile it has a key, unless the server has chosen
// its ID, because the history of keys must be the same.
func (g *generator) shortLease() request {
	q := &pb.LeaseGrantRequest{ID: pick[int64](g, 0, 1000, -5), TTL: pick[int64](g, -1<<62, -1, 0, 1, 2, 3)}
	return scripted("shortLease", q, func(ctx context.Context, e *endpoint, s *script) {
		r, err := e.lease.LeaseGrant(ctx, q)
		id := r.GetID()
		if q.ID == 0 && id > 0 {
			r.ID = 1 // the servers choose the IDs at random
		}
		note(s, r, err)
		about := func() {
			stream, err := e.lease.LeaseKeepAlive(ctx)
			if err == nil {
				err = sent(stream.Send(&pb.LeaseKeepAliveRequest{ID: id}))
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
			left, err := e.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
			if err == nil {
				left.ID, left.TTL = q.ID, min(left.TTL, 0)
			}
			note(s, left, err)
		}
		about()
		if q.ID != 0 {
			ask(ctx, s, e.kv.Put, &pb.PutRequest{Key: []byte("a"), Lease: id})
			about()
		}
		ask(ctx, s, e.lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: id})
		about()
	})
}

// withLease grants a lease, and revokes it after the rest of a script.
func withLease(ctx context.Context, e *endpoint, s *script, id int64, rest func()) {
	ask(ctx, s, e.lease.LeaseGrant, &pb.LeaseGrantRequest{ID: id, TTL: 5000})
	rest()
	ask(ctx, s, e.lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: id})
}

func (g *generator) lock() request {
	q := &v3lockpb.LockRequest{Name: []byte(pick(g, "lock", "a", "", "\xff")), Lease: 2000}
	if g.chance(5) {
		q.Lease++ // which does not exist
	}
	return scripted("lock", q, func(ctx context.Context, e *endpoint, s *script) {
		withLease(ctx, e, s, 2000, func() {
			held := ask(ctx, s, e.lock.Lock, q)
			ask(ctx, s, e.lock.Lock, q)
			ask(ctx, s, e.lock.Unlock, &v3lockpb.UnlockRequest{Key: held.GetKey()})
			ask(ctx, s, e.lock.Unlock, &v3lockpb.UnlockRequest{Key: held.GetKey()})
		})
	})
}

// waitForLock is a lock with two sessions. The second one waits until the first one frees the lock, or
// until it gives up.
func (g *generator) waitForLock() request {
	name, frees := []byte("lock"), g.chance(2)
	return scripted("waitForLock", &v3lockpb.LockRequest{Name: name}, func(ctx context.Context, e *endpoint, s *script) {
		withLease(ctx, e, s, 2000, func() {
			withLease(ctx, e, s, 2001, func() {
				held := ask(ctx, s, e.lock.Lock, &v3lockpb.LockRequest{Name: name, Lease: 2000})
				waiting, cancel := context.WithCancel(ctx)
				defer cancel()
				second := &script{}
				done := make(chan struct{})
				go func() {
					defer close(done)
					ask(waiting, second, e.lock.Lock, &v3lockpb.LockRequest{Name: name, Lease: 2001})
				}()
				e.awaitKeys(ctx, "lock/", 2) // the second waits
				if !frees {
					cancel()
					<-done
					e.awaitKeys(ctx, "lock/", 1)
				}
				ask(ctx, s, e.lock.Unlock, &v3lockpb.UnlockRequest{Key: held.GetKey()})
				<-done
				s.said = append(s.said, second.said...)
			})
		})
	})
}

// awaitKeys waits until there are as many keys with a prefix.
func (e *endpoint) awaitKeys(ctx context.Context, prefix string, count int64) {
	end := []byte(prefix)
	end[len(end)-1]++
	for {
		keys, err := e.kv.Range(ctx, &pb.RangeRequest{Key: []byte(prefix), RangeEnd: end, CountOnly: true})
		if err != nil || keys.Count == count {
			return
		}
	}
}

func (g *generator) election() request {
	name, resigns := []byte(pick(g, "election", "a")), g.chance(2)
	return scripted("election", &v3electionpb.LeaderRequest{Name: name}, func(ctx context.Context, e *endpoint, s *script) {
		leader := func() { ask(ctx, s, e.election.Leader, &v3electionpb.LeaderRequest{Name: name}) }
		leader()
		withLease(ctx, e, s, 3000, func() {
			won := ask(ctx, s, e.election.Campaign, &v3electionpb.CampaignRequest{Name: name, Lease: 3000, Value: []byte("v")})
			leader()
			stream, err := e.election.Observe(ctx, &v3electionpb.LeaderRequest{Name: name})
			receive(s, stream, err)
			proclaim := &v3electionpb.ProclaimRequest{Leader: won.GetLeader(), Value: []byte("w")}
			ask(ctx, s, e.election.Proclaim, proclaim)
			receive(s, stream, err)
			if resigns {
				ask(ctx, s, e.election.Resign, &v3electionpb.ResignRequest{Leader: won.GetLeader()})
				ask(ctx, s, e.election.Proclaim, proclaim)
				ask(ctx, s, e.election.Resign, &v3electionpb.ResignRequest{Leader: won.GetLeader()})
			}
		})
		leader()
	})
}

// strangeElection sends requests about elections without a leader.
func (g *generator) strangeElection() request {
	name := []byte(pick(g, "none", ""))
	return scripted("strangeElection", &v3electionpb.LeaderRequest{Name: name}, func(ctx context.Context, e *endpoint, s *script) {
		ask(ctx, s, e.election.Leader, &v3electionpb.LeaderRequest{Name: name})
		ask(ctx, s, e.election.Campaign, &v3electionpb.CampaignRequest{Name: name, Lease: 4444, Value: []byte("v")})
		ask(ctx, s, e.election.Proclaim, &v3electionpb.ProclaimRequest{})
		ask(ctx, s, e.election.Resign, &v3electionpb.ResignRequest{})
		other := &v3electionpb.LeaderKey{Name: name, Key: []byte("none/115c"), Rev: 5, Lease: 4444}
		ask(ctx, s, e.election.Proclaim, &v3electionpb.ProclaimRequest{Leader: other, Value: []byte("w")})
		ask(ctx, s, e.election.Resign, &v3electionpb.ResignRequest{Leader: other})
		ask(ctx, s, e.election.Resign, &v3electionpb.ResignRequest{Leader: &v3electionpb.LeaderKey{Lease: 4444}})
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		stream, err := e.election.Observe(short, &v3electionpb.LeaderRequest{Name: name})
		if err == nil {
			_, err = stream.Recv()
		}
		s.said = append(s.said, status.Code(err).String()) // the client, or the server, notices the deadline first
	})
}

// state requests all comparable facts about the server.
func (g *generator) state() request {
	return scripted("state", &pb.StatusRequest{}, func(ctx context.Context, e *endpoint, s *script) {
		ask(ctx, s, e.maintenance.Status, &pb.StatusRequest{})
		ask(ctx, s, e.cluster.MemberList, &pb.MemberListRequest{Linearizable: true})
		ask(ctx, s, e.cluster.MemberList, &pb.MemberListRequest{})
		ask(ctx, s, e.maintenance.Hash, &pb.HashRequest{})
		ask(ctx, s, e.auth.AuthStatus, &pb.AuthStatusRequest{})
	})
}

func (g *generator) noSpace() request { return g.alarm(pb.AlarmType_NOSPACE) }
func (g *generator) corrupt() request { return g.alarm(pb.AlarmType_CORRUPT) }
func (g *generator) noAlarm() request { return g.alarm(pb.AlarmType_NONE) }

// alarm raises an alarm, checks its effect, and clears it.
func (g *generator) alarm(kind pb.AlarmType) request {
	write, lease := g.txn(0), g.leaseID()
	// etcd reports a key that is written twice before an alarm; with one operation there is none.
	write.Success, write.Failure = write.Success[:min(1, len(write.Success))], write.Failure[:min(1, len(write.Failure))]
	member := 7 * uint64(kind)
	return scripted("alarm"+kind.String(), write, func(ctx context.Context, e *endpoint, s *script) {
		alarm := func(action pb.AlarmRequest_AlarmAction) {
			ask(ctx, s, e.maintenance.Alarm, &pb.AlarmRequest{Action: action, MemberID: member, Alarm: kind})
		}
		alarm(pb.AlarmRequest_ACTIVATE)
		alarm(pb.AlarmRequest_ACTIVATE)
		alarm(pb.AlarmRequest_GET)
		ask(ctx, s, e.maintenance.Alarm, &pb.AlarmRequest{})
		ask(ctx, s, e.maintenance.Status, &pb.StatusRequest{})
		ask(ctx, s, e.kv.Put, &pb.PutRequest{Key: []byte("a")})
		ask(ctx, s, e.kv.DeleteRange, &pb.DeleteRangeRequest{Key: []byte("a")})
		ask(ctx, s, e.kv.Txn, write)
		ask(ctx, s, e.kv.Range, &pb.RangeRequest{Key: []byte("a")})
		ask(ctx, s, e.lease.LeaseGrant, &pb.LeaseGrantRequest{ID: 4000, TTL: 5000})
		for _, id := range []int64{4000, lease} {
			ask(ctx, s, e.lease.LeaseRevoke, &pb.LeaseRevokeRequest{ID: id})
		}
		ask(ctx, s, e.kv.Compact, &pb.CompactionRequest{Revision: 1 << 40})
		alarm(pb.AlarmRequest_DEACTIVATE)
		alarm(pb.AlarmRequest_DEACTIVATE)
	})
}

// snapshot reads a snapshot. etcdapi/programs compares the contents of snapshots.
func (g *generator) snapshot() request {
	return scripted("snapshot", &pb.SnapshotRequest{}, func(ctx context.Context, e *endpoint, s *script) {
		stream, err := e.maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
		if err != nil {
			s.say(err)
			return
		}
		size, remaining, versions := 0, uint64(0), map[string]bool{}
		for {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				s.say(err)
				return
			}
			if size > 0 && len(r.Blob) > 0 && r.RemainingBytes > remaining {
				s.said = append(s.said, fmt.Sprintf("WRONG: %d bytes remain after %d", r.RemainingBytes, remaining))
			}
			size, remaining = size+len(r.Blob), r.RemainingBytes
			versions[r.Version] = true
			normalize(r)
		}
		s.said = append(s.said, fmt.Sprintf("beyond whole sectors %d, remaining %d, versions %v", size%512, remaining, versions))
	})
}
