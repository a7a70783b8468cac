// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/etcdapi"
)

func TestMemberListHasURLs(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		client := etcdapi.NewClient(n, etcdapi.WithClientURLs("http://10.0.0.1:2379"))
		defer client.Close()
		all, err := client.MemberList(t.Context())
		require.NoError(t, err)
		require.Zero(t, all.Header.Revision)
		require.Len(t, all.Members, 3)
		for i, m := range all.Members {
			require.False(t, m.IsLearner)
			require.NotEmpty(t, m.Name)
			require.Len(t, m.PeerURLs, 1)
			if i > 0 {
				require.Greater(t, m.ID, all.Members[i-1].ID)
			}
			if coterie.MemberID(m.ID) == n.ID() {
				require.Equal(t, "http://"+n.Status().Addr, m.PeerURLs[0])
				require.Equal(t, []string{"http://10.0.0.1:2379"}, m.ClientURLs)
			}
		}
	})
}

func TestMembersChangeOverTheWire(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx := t.Context()
		client := etcdapi.NewClient(c.Follower())
		defer client.Close()
		added, err := client.MemberAddAsLearner(ctx, []string{"http://10.0.0.4:7400"})
		require.NoError(t, err)
		require.True(t, added.Member.IsLearner)
		require.Equal(t, []string{"http://10.0.0.4:7400"}, added.Member.PeerURLs)
		require.Contains(t, added.Members, added.Member) // without a name
		require.Len(t, added.Members, 4)

		members := pb.NewClusterClient(etcdapi.NewConn(c.Leader()))
		_, err = members.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://10.0.0.4:7400"}})
		requireError(t, codes.FailedPrecondition, "etcdserver: Peer URLs already exists", err)
		_, err = members.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"10.0.0.4:7400"}})
		requireError(t, codes.InvalidArgument, "etcdserver: given member URLs are invalid", err)
		_, err = members.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://10.0.0.6:7400"}, IsLearner: true})
		requireError(t, codes.FailedPrecondition, "etcdserver: too many learner members in cluster", err)
		_, err = members.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: added.Member.ID})
		requireError(t, codes.FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader", err)
		_, err = members.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: uint64(c.Leader().ID())})
		requireError(t, codes.FailedPrecondition, "etcdserver: can only promote a learner member", err)
		_, err = members.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 7})
		requireError(t, codes.NotFound, "etcdserver: member not found", err)

		updated, err := client.MemberUpdate(ctx, added.Member.ID, []string{"http://10.0.0.5:7400"})
		require.NoError(t, err)
		require.Equal(t, []string{"http://10.0.0.5:7400"}, urlsOf(updated.Members, added.Member.ID))
		_, err = members.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: added.Member.ID, PeerURLs: []string{"http://" + c.Leader().Status().Addr}})
		requireError(t, codes.FailedPrecondition, "etcdserver: Peer URLs already exists", err)
		_, err = members.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: 7, PeerURLs: []string{"not a URL"}})
		requireError(t, codes.NotFound, "etcdserver: member not found", err)
		_, err = members.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: 7, PeerURLs: []string{"http://10.0.0.9:7400"}})
		requireError(t, codes.NotFound, "etcdserver: member not found", err)

		removed, err := client.MemberRemove(ctx, added.Member.ID)
		require.NoError(t, err)
		require.Len(t, removed.Members, 3)
		_, err = members.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: added.Member.ID})
		requireError(t, codes.NotFound, "etcdserver: member not found", err)
	})
}

func TestT57_IDOfRemovedMemberStaysUnknown(t *testing.T) {
	coterietest.Run(t, 2, func(t *testing.T, c *coterietest.Cluster) {
		ctx := t.Context()
		client, cluster := etcdapi.NewClient(c.Leader()), pb.NewClusterClient(etcdapi.NewConn(c.Leader()))
		defer client.Close()
		i := c.Join(nil)
		id := func() uint64 {
			members, err := client.MemberList(ctx)
			require.NoError(t, err)
			at := slices.IndexFunc(members.Members, func(m *pb.Member) bool { return m.Name == c.Node(i).Status().Name })
			if at < 0 {
				return 0
			}
			return members.Members[at].ID
		}
		require.Eventually(t, func() bool { return id() != 0 }, time.Minute, time.Second)
		first := id()
		require.EqualValues(t, c.Node(i).ID(), first)
		_, err := client.MemberRemove(ctx, first)
		require.NoError(t, err)
		<-c.Node(i).Done()
		c.Wipe(i)
		c.Restart(i)
		require.Eventually(t, func() bool { return id() != 0 }, time.Minute, time.Second)
		second := id()
		require.NotEqual(t, first, second)

		urls := []string{"http://" + c.Node(i).Status().Addr}
		_, err = cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: first})
		requireError(t, codes.NotFound, "etcdserver: member not found", err)
		_, err = cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: first, PeerURLs: urls})
		requireError(t, codes.NotFound, "etcdserver: member not found", err)
		_, err = cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: first})
		requireError(t, codes.NotFound, "etcdserver: member not found", err)
		_, err = client.MoveLeader(ctx, first)
		require.ErrorIs(t, err, rpctypes.ErrBadLeaderTransferee)
		_, err = cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: second, PeerURLs: urls})
		require.NoError(t, err)

		// The member's own endpoint, alarms, and the leader in every endpoint's status have the new ID.
		own := etcdapi.NewClient(c.Node(i))
		defer own.Close()
		require.Eventually(t, func() bool {
			members, err := c.Leader().Members(ctx)
			require.NoError(t, err)
			return !slices.ContainsFunc(members, func(m coterie.Member) bool { return !m.Voter })
		}, time.Minute, time.Second)
		put, err := own.Put(ctx, "k", "v")
		require.NoError(t, err)
		require.Equal(t, second, put.Header.MemberId)
		list, err := own.MemberList(ctx)
		require.NoError(t, err)
		require.Equal(t, second, list.Header.MemberId)
		maintenance := pb.NewMaintenanceClient(etcdapi.NewConn(c.Leader()))
		alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: second, Alarm: pb.AlarmType_CORRUPT}
		_, err = maintenance.Alarm(ctx, alarm)
		require.NoError(t, err)
		alarms, err := maintenance.Alarm(ctx, &pb.AlarmRequest{})
		require.NoError(t, err)
		require.Equal(t, second, alarms.Alarms[0].MemberID)
		alarm.Action = pb.AlarmRequest_DEACTIVATE
		_, err = maintenance.Alarm(ctx, alarm)
		require.NoError(t, err)
		_, err = maintenance.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: second})
		require.NoError(t, err)
		status, err := pb.NewMaintenanceClient(etcdapi.NewConn(c.Node(i))).Status(ctx, &pb.StatusRequest{})
		require.NoError(t, err)
		require.Equal(t, second, status.Leader)
		require.Equal(t, second, status.Header.MemberId)
	})
}

func urlsOf(members []*pb.Member, id uint64) []string {
	for _, m := range members {
		if m.ID == id {
			return m.PeerURLs
		}
	}
	return nil
}

// Serve puts the client URLs of a node on record, and every endpoint lists them.
func TestClientURLsAreOnRecord(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.Metadata = map[string]string{"zone": "a"} })
	serve(t, n, etcdapi.WithClientURLs("http://10.0.0.1:2379", "https://db.example.com"))
	other := etcdapi.NewClient(n)
	defer other.Close()
	require.Eventually(t, func() bool {
		all, err := other.MemberList(t.Context())
		require.NoError(t, err)
		return slices.Equal(all.Members[0].ClientURLs, []string{"http://10.0.0.1:2379", "https://db.example.com"})
	}, 10*time.Second, time.Millisecond)
	members, err := n.Members(t.Context())
	require.NoError(t, err)
	require.Equal(t, "a", members[0].Metadata["zone"])
}

func TestPeerURLsAreListedAsGiven(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		client := etcdapi.NewClient(c.Leader())
		defer client.Close()
		urls := []string{"https://10.0.0.4:7400", "http://10.0.0.4:7401"}
		added, err := client.MemberAddAsLearner(t.Context(), urls)
		require.NoError(t, err)
		require.Equal(t, urls, added.Member.PeerURLs)
		require.Equal(t, urls, urlsOf(added.Members, added.Member.ID))
		require.NoError(t, c.Leader().UpdateMember(t.Context(), coterie.MemberID(added.Member.ID), "10.0.0.5:7400"))
		all, err := client.MemberList(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"http://10.0.0.5:7400"}, urlsOf(all.Members, added.Member.ID), "the member has moved")
	})
}

// A node that starts at the address of an added member is that member, and can be promoted.
func TestAddedMemberIsPromoted(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		client := etcdapi.NewClient(c.Leader())
		defer client.Close()
		i := c.Join(func(cfg *coterie.Config) { cfg.NonVoter = true })
		id := uint64(c.Node(i).ID())
		require.Eventually(t, func() bool { return isLearner(t, client, id) }, time.Minute, time.Second)
		status, err := pb.NewMaintenanceClient(etcdapi.NewConn(c.Node(i))).Status(t.Context(), &pb.StatusRequest{})
		require.NoError(t, err)
		require.True(t, status.IsLearner)
		var promoted *clientv3.MemberPromoteResponse
		require.Eventually(t, func() bool { // it may not have caught up
			promoted, err = client.MemberPromote(t.Context(), id)
			return err == nil
		}, time.Minute, time.Second)
		require.Len(t, promoted.Members, 2)
		require.False(t, isLearner(t, client, id))
	})
}

func TestFailedPromotionPromotesNothing(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		client := etcdapi.NewClient(c.Leader())
		defer client.Close()
		i := c.Join(func(cfg *coterie.Config) { cfg.NonVoter = true })
		id := uint64(c.Node(i).ID())
		require.Eventually(t, func() bool { return isLearner(t, client, id) }, time.Minute, time.Second)
		c.Stop(i)
		time.Sleep(5 * time.Second)
		began := time.Now()
		_, err := pb.NewClusterClient(etcdapi.NewConn(c.Leader())).MemberPromote(t.Context(), &pb.MemberPromoteRequest{ID: id})
		requireError(t, codes.FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader", err)
		require.Less(t, time.Since(began), time.Second)
		c.Restart(i)
		time.Sleep(time.Minute)
		require.True(t, isLearner(t, client, id))
	})
}

func isLearner(t *testing.T, c *clientv3.Client, id uint64) bool {
	all, err := c.MemberList(t.Context())
	require.NoError(t, err)
	for _, m := range all.Members {
		if m.ID == id {
			return m.IsLearner
		}
	}
	return false
}

func TestTooFewMembersRemain(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		members := pb.NewClusterClient(etcdapi.NewConn(c.Leader()))
		follower := c.Follower()
		for i, n := range c.Nodes() {
			if n != c.Leader() && n != follower {
				c.Stop(i)
				break
			}
		}
		time.Sleep(5 * time.Second)
		_, err := members.MemberRemove(t.Context(), &pb.MemberRemoveRequest{ID: uint64(follower.ID())})
		requireError(t, codes.Unavailable, "etcdserver: unhealthy cluster", err)
	})
}

// An etcd that was added has no name, and is listed as unstarted, until it runs.
func TestAddedMemberHasNoNameUntilItIsServed(t *testing.T) {
	first := open(t, func(c *coterie.Config) { c.Addr = "127.0.0.1:0" })
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{serve(t, first)}, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer client.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0") // a free port
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	added, err := client.MemberAddAsLearner(t.Context(), []string{"http://" + addr})
	require.NoError(t, err)
	name := func() string {
		all, err := client.MemberList(t.Context())
		require.NoError(t, err)
		i := slices.IndexFunc(all.Members, func(m *pb.Member) bool { return m.ID == added.Member.ID })
		return all.Members[i].Name
	}
	require.Empty(t, name())
	second := open(t, func(c *coterie.Config) { c.Addr, c.Join, c.NonVoter = addr, []string{first.Status().Addr}, true })
	require.EqualValues(t, added.Member.ID, second.ID())
	serve(t, second)
	require.Eventually(t, func() bool { return name() == addr }, 20*time.Second, 10*time.Millisecond)
}

// A member can have another name in etcd's protocol than in coterie, and URLs with https.
func TestServedMemberHasNameAndPeerURLs(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Leader()
		urls := []string{"https://" + n.Status().Addr}
		client := etcdapi.NewClient(n, etcdapi.WithName("one"), etcdapi.WithPeerURLs(urls...))
		defer client.Close()
		all, err := client.MemberList(t.Context())
		require.NoError(t, err)
		require.Equal(t, "one", all.Members[0].Name)
		require.Equal(t, urls, all.Members[0].PeerURLs)
	})
}
