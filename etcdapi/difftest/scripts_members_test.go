// SPDX-License-Identifier: Apache-2.0

package difftest

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// memberCalls sends invalid requests about members.
func (g *generator) memberCalls() request {
	urls := pick(g, nil, []string{""}, []string{"x"}, []string{"http://host"}, []string{"ftp://127.0.0.1:1"}, []string{"http://127.0.0.1:1/path"},
		[]string{"http://127.0.0.1:1", "http://127.0.0.1"}, []string{"127.0.0.1:1"}, []string{"unix://sock:1"})
	if g.users != nil {
		urls = []string{"http://127.0.0.1:1"} // for an invalid URL with an invalid token, etcd reports the URL
	}
	learner, id := g.chance(2), uint64(g.IntN(1000))+1
	q := &pb.MemberAddRequest{PeerURLs: urls, IsLearner: learner}
	if len(urls) == 1 && urls[0] == "unix://sock:1" || g.users != nil {
		q.PeerURLs = nil // it would be added
	}
	return scripted("memberCalls", q, func(ctx context.Context, e *endpoint, s *script) {
		if g.users == nil {
			ask(ctx, s, e.cluster.MemberAdd, q)
		}
		ask(ctx, s, e.cluster.MemberUpdate, &pb.MemberUpdateRequest{ID: id, PeerURLs: urls})
		ask(ctx, s, e.cluster.MemberUpdate, &pb.MemberUpdateRequest{ID: id, PeerURLs: []string{"http://127.0.0.1:9"}})
		ask(ctx, s, e.cluster.MemberPromote, &pb.MemberPromoteRequest{ID: id})
		ask(ctx, s, e.cluster.MemberRemove, &pb.MemberRemoveRequest{ID: id})
		ask(ctx, s, e.maintenance.MoveLeader, &pb.MoveLeaderRequest{TargetID: id})
		self := e.id(ctx, s)
		ask(ctx, s, e.cluster.MemberRemove, &pb.MemberRemoveRequest{ID: self})
		ask(ctx, s, e.cluster.MemberPromote, &pb.MemberPromoteRequest{ID: self})
		ask(ctx, s, e.maintenance.MoveLeader, &pb.MoveLeaderRequest{TargetID: self})
	})
}

// id returns the ID of the member that an endpoint belongs to.
func (e *endpoint) id(ctx context.Context, s *script) uint64 {
	r, err := e.maintenance.Status(ctx, &pb.StatusRequest{})
	s.say(err)
	return r.GetHeader().GetMemberId()
}

// learner adds a learner that never starts, uses it in other calls, and removes it. Its URLs are new each time: within
// a second etcd makes the same ID of the same URL, and knows that it was removed.
func (g *generator) learner() request {
	url := func() string {
		g.urls++
		return fmt.Sprintf("http://127.0.0.1:%d", 1000+g.urls%60_000)
	}
	q := &pb.MemberAddRequest{PeerURLs: []string{url()}, IsLearner: true}
	again := &pb.MemberAddRequest{PeerURLs: []string{q.PeerURLs[0], url()}, IsLearner: true}
	another := &pb.MemberAddRequest{PeerURLs: []string{url()}, IsLearner: true}
	moved := []string{url()}
	return scripted("learner", q, func(ctx context.Context, e *endpoint, s *script) {
		added, err := e.cluster.MemberAdd(ctx, q)
		id := added.GetMember().GetID()
		note(s, added, err)
		ask(ctx, s, e.cluster.MemberAdd, again)
		ask(ctx, s, e.cluster.MemberAdd, another)
		ask(ctx, s, e.cluster.MemberList, &pb.MemberListRequest{Linearizable: true})
		ask(ctx, s, e.maintenance.MoveLeader, &pb.MoveLeaderRequest{TargetID: id})
		ask(ctx, s, e.cluster.MemberPromote, &pb.MemberPromoteRequest{ID: id})
		ask(ctx, s, e.cluster.MemberUpdate, &pb.MemberUpdateRequest{ID: id, PeerURLs: moved})
		ask(ctx, s, e.cluster.MemberList, &pb.MemberListRequest{})
		ask(ctx, s, e.cluster.MemberRemove, &pb.MemberRemoveRequest{ID: id})
		ask(ctx, s, e.cluster.MemberRemove, &pb.MemberRemoveRequest{ID: id})
	})
}

// maintenanceCalls sends maintenance requests that change nothing.
func (g *generator) maintenanceCalls() request {
	return scripted("maintenanceCalls", &pb.DowngradeRequest{}, func(ctx context.Context, e *endpoint, s *script) {
		for action := range pb.DowngradeRequest_DowngradeAction(4) {
			for _, version := range []string{"", "x", "4.0.0", "3.7.0", "1.0", "3"} {
				ask(ctx, s, e.maintenance.Downgrade, &pb.DowngradeRequest{Action: action, Version: version})
			}
		}
		ask(ctx, s, e.maintenance.Defragment, &pb.DefragmentRequest{})
		ask(ctx, s, e.maintenance.Status, &pb.StatusRequest{})
	})
}
