// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func TestEqualMembersRaiseNoAlarm(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for _, n := range c.Nodes() {
			s := newServer(n, []Option{WithCorruptionCheck(time.Minute)})
			running.Go(func() { s.compareMembers(ctx) })
		}
		for range 5 {
			_, err := c.Follower().Put(ctx, "k", "v")
			require.NoError(t, err)
			time.Sleep(time.Minute)
		}
		all, err := c.Leader().Alarms(ctx)
		require.NoError(t, err)
		require.Empty(t, all)
		cancel()
		running.Wait()
	})
}

func TestMemberThatDiffersStopsWrites(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx, follower := t.Context(), c.Follower()
		s := newServer(c.Leader(), nil)
		s.raiseCorrupt(ctx, &coterie.CompareMembersResponse{Divergent: []coterie.MemberID{follower.ID()}})
		all, err := pb.NewMaintenanceClient(NewConn(follower)).Alarm(ctx, &pb.AlarmRequest{})
		require.NoError(t, err)
		require.Len(t, all.Alarms, 1)
		require.Equal(t, pb.AlarmType_CORRUPT, all.Alarms[0].Alarm)
		require.Equal(t, uint64(follower.ID()), all.Alarms[0].MemberID)
		_, err = pb.NewKVClient(NewConn(c.Leader())).Put(ctx, &pb.PutRequest{Key: []byte("k")})
		require.ErrorIs(t, err, rpctypes.ErrGRPCCorrupt)
	})
}
