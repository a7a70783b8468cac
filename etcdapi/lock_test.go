// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/coterie-kv/coterie"
)

func TestLockService(t *testing.T) {
	conns(t, func(t *testing.T, n *coterie.Node, conn grpc.ClientConnInterface) {
		locks, ctx := v3lockpb.NewLockClient(conn), t.Context()
		leases := pb.NewLeaseClient(conn)
		for id := int64(0x10); id <= 0x11; id++ {
			_, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: 600})
			require.NoError(t, err)
		}
		held, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("lock"), Lease: 0x10})
		require.NoError(t, err)
		require.Equal(t, "lock/10", string(held.Key))
		again, err := locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("lock"), Lease: 0x10})
		require.NoError(t, err)
		require.Equal(t, held.Key, again.Key, "the lock of a lease")

		short, cancel := context.WithCancel(ctx)
		gaveUp := make(chan error, 1)
		go func() {
			_, err := locks.Lock(short, &v3lockpb.LockRequest{Name: []byte("lock"), Lease: 0x11})
			gaveUp <- err
		}()
		waitFor(t, n, "lock/11")
		cancel()
		requireError(t, codes.Canceled, "context canceled", <-gaveUp)

		second := make(chan *v3lockpb.LockResponse, 1)
		go func() {
			r, _ := locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("lock"), Lease: 0x11})
			second <- r
		}()
		waitFor(t, n, "lock/11")
		require.Empty(t, second)
		_, err = locks.Unlock(ctx, &v3lockpb.UnlockRequest{Key: held.Key})
		require.NoError(t, err)
		require.Equal(t, "lock/11", string((<-second).Key))

		_, err = locks.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("lock"), Lease: 99})
		requireError(t, codes.Unknown, "etcdserver: requested lease not found", err)
	})
}

// waitFor waits until a key exists.
func waitFor(t *testing.T, n *coterie.Node, key string) {
	t.Helper()
	for r, err := range n.Watch(t.Context(), key, coterie.WithRevision(1)) {
		require.NoError(t, err)
		if e := r.Events[len(r.Events)-1]; e.Type == coterie.EventPut {
			if now, err := n.Get(t.Context(), key); err == nil && now.Count == 1 {
				return
			}
		}
	}
}

func TestLockServiceGrantsALease(t *testing.T) {
	conns(t, func(t *testing.T, n *coterie.Node, conn grpc.ClientConnInterface) {
		held, err := v3lockpb.NewLockClient(conn).Lock(t.Context(), &v3lockpb.LockRequest{Name: []byte("lock")})
		require.NoError(t, err)
		r, err := n.Get(t.Context(), string(held.Key))
		require.NoError(t, err)
		l, err := n.TimeToLive(t.Context(), r.KVs[0].Lease)
		require.NoError(t, err)
		require.EqualValues(t, 60, l.TTL.Seconds())
	})
}
