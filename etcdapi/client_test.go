// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/clientv3util"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"go.etcd.io/etcd/client/v3/ordering"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/coterie-kv/coterie/etcdapi"
)

func session(t *testing.T, c *clientv3.Client, opts ...concurrency.SessionOption) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(c, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestClientReadsAndWrites(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		ctx := t.Context()
		_, err := c.Put(ctx, "a", "1")
		require.NoError(t, err)
		p, err := c.Put(ctx, "a", "2", clientv3.WithPrevKV())
		require.NoError(t, err)
		require.Equal(t, "1", string(p.PrevKv.Value))
		r, err := c.Txn(ctx).If(clientv3util.KeyExists("a"), clientv3util.KeyMissing("b")).
			Then(clientv3.OpPut("b", "3"), clientv3.OpGet("a")).Commit()
		require.NoError(t, err)
		require.True(t, r.Succeeded)
		require.Equal(t, "2", string(r.Responses[1].GetResponseRange().Kvs[0].Value))
		g, err := c.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
		require.NoError(t, err)
		require.Len(t, g.Kvs, 2)
		d, err := c.Delete(ctx, "", clientv3.WithFromKey())
		require.NoError(t, err)
		require.EqualValues(t, 2, d.Deleted)
		_, err = c.Compact(ctx, d.Header.Revision)
		require.NoError(t, err)
		_, err = c.Get(ctx, "a", clientv3.WithRev(2))
		require.ErrorIs(t, err, rpctypes.ErrCompacted)
		_, err = c.Get(ctx, "a", clientv3.WithRev(99))
		require.ErrorIs(t, err, rpctypes.ErrFutureRev)
	})
}

func TestClientWatches(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		first, second := c.Watch(ctx, "a", clientv3.WithPrefix(), clientv3.WithPrevKV()), c.Watch(ctx, "b", clientv3.WithCreatedNotify())
		require.True(t, (<-second).Created)
		for _, kv := range []string{"a1", "b", "a2"} {
			_, err := c.Put(ctx, kv, kv)
			require.NoError(t, err)
		}
		require.Equal(t, "a1", string((<-first).Events[0].Kv.Key))
		require.Equal(t, "a2", string((<-first).Events[0].Kv.Key))
		require.Equal(t, "b", string((<-second).Events[0].Kv.Key))
		require.NoError(t, c.RequestProgress(ctx))
		progress := <-first
		require.True(t, progress.IsProgressNotify())
		cancel()
		_, ok := <-first
		require.False(t, ok)
	})
}

func TestClientKeepsLeasesAlive(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		l, err := c.Grant(t.Context(), 60)
		require.NoError(t, err)
		_, err = c.Put(t.Context(), "k", "v", clientv3.WithLease(l.ID))
		require.NoError(t, err)
		alive, err := c.KeepAlive(t.Context(), l.ID)
		require.NoError(t, err)
		require.EqualValues(t, 60, (<-alive).TTL)
		left, err := c.TimeToLive(t.Context(), l.ID, clientv3.WithAttachedKeys())
		require.NoError(t, err)
		require.Equal(t, []string{"k"}, []string{string(left.Keys[0])})
		_, err = c.Revoke(t.Context(), l.ID)
		require.NoError(t, err)
		_, err = c.KeepAliveOnce(t.Context(), l.ID)
		require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)
	})
}

func TestConcurrencyPackage(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		ctx := t.Context()
		a, b := session(t, c), session(t, c)
		locked, waits := concurrency.NewMutex(a, "m"), concurrency.NewMutex(b, "m")
		require.NoError(t, locked.Lock(ctx))
		require.ErrorIs(t, waits.TryLock(ctx), concurrency.ErrLocked)
		got := make(chan error, 1)
		go func() { got <- waits.Lock(ctx) }()
		require.NoError(t, locked.Unlock(ctx))
		require.NoError(t, <-got)

		e := concurrency.NewElection(a, "e")
		require.NoError(t, e.Campaign(ctx, "first"))
		seen := e.Observe(ctx)
		require.Equal(t, "first", string((<-seen).Kvs[0].Value))
		next := concurrency.NewElection(b, "e")
		go func() { got <- next.Campaign(ctx, "second") }()
		require.NoError(t, e.Resign(ctx))
		require.NoError(t, <-got)
		require.Equal(t, "second", string((<-seen).Kvs[0].Value))

		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				_, err := concurrency.NewSTM(c, func(stm concurrency.STM) error {
					stm.Put("count", stm.Get("count")+"x")
					return nil
				})
				require.NoError(t, err)
			})
		}
		group.Wait()
		r, err := c.Get(ctx, "count")
		require.NoError(t, err)
		require.Equal(t, "xxxx", string(r.Kvs[0].Value))
	})
}

func TestNamespacePackage(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		plain := c.KV
		c.KV, c.Watcher, c.Lease = namespace.NewKV(c.KV, "ns/"), namespace.NewWatcher(c.Watcher, "ns/"), namespace.NewLease(c.Lease, "ns/")
		changes := c.Watch(t.Context(), "", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		require.True(t, (<-changes).Created)
		_, err := c.Put(t.Context(), "k", "v")
		require.NoError(t, err)
		require.Equal(t, "k", string((<-changes).Events[0].Kv.Key))
		r, err := plain.Get(t.Context(), "ns/k")
		require.NoError(t, err)
		require.Len(t, r.Kvs, 1)
	})
}

func TestOrderingPackage(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		kv := ordering.NewKV(c.KV, func(clientv3.Op, clientv3.OpResponse, int64) error { return errors.New("went back") })
		_, err := kv.Put(t.Context(), "k", "v")
		require.NoError(t, err)
		r, err := kv.Get(t.Context(), "k", clientv3.WithSerializable())
		require.NoError(t, err)
		require.Len(t, r.Kvs, 1)
	})
}

func TestLeasingPackage(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		kv, stop, err := leasing.NewKV(c, "owners/")
		require.NoError(t, err)
		defer stop()
		_, err = kv.Put(t.Context(), "k", "1")
		require.NoError(t, err)
		for range 2 { // the second time from the cache
			r, err := kv.Get(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, "1", string(r.Kvs[0].Value))
		}
		owners, err := c.Get(t.Context(), "owners/k")
		require.NoError(t, err)
		require.Len(t, owners.Kvs, 1)
	})
}

func TestMirrorPackage(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		for i := range 5 {
			_, err := c.Put(t.Context(), fmt.Sprint("k", i), "v")
			require.NoError(t, err)
		}
		s := mirror.NewSyncer(c, "k", 0)
		pages, errs := s.SyncBase(t.Context())
		found := 0
		for page := range pages {
			found += len(page.Kvs)
		}
		require.NoError(t, <-errs)
		require.Equal(t, 5, found)
		updates := s.SyncUpdates(t.Context())
		_, err := c.Put(t.Context(), "k9", "v")
		require.NoError(t, err)
		require.Equal(t, "k9", string((<-updates).Events[0].Kv.Key))
	})
}

func TestNamingPackages(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		addr := serve(t, open(t)) // a service: grpc.health.v1
		manager, err := endpoints.NewManager(c, "services/health")
		require.NoError(t, err)
		require.NoError(t, manager.AddEndpoint(t.Context(), "services/health/1", endpoints.Endpoint{Addr: addr}))
		all, err := manager.List(t.Context())
		require.NoError(t, err)
		require.Len(t, all, 1)
		builder, err := resolver.NewBuilder(c)
		require.NoError(t, err)
		conn, err := grpc.NewClient("etcd:///services/health", grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer conn.Close()
		r, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		require.NoError(t, err)
		require.Equal(t, healthpb.HealthCheckResponse_SERVING, r.Status)
	})
}

func TestKubernetesPackage(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		k := kubernetes.Client{Client: c}
		k.Kubernetes = &k
		put, err := k.OptimisticPut(t.Context(), "pods/a", []byte("1"), 0, kubernetes.PutOptions{})
		require.NoError(t, err)
		require.True(t, put.Succeeded)
		late, err := k.OptimisticPut(t.Context(), "pods/a", []byte("2"), 0, kubernetes.PutOptions{GetOnFailure: true})
		require.NoError(t, err)
		require.False(t, late.Succeeded)
		require.Equal(t, "1", string(late.KV.Value))
		list, err := k.List(t.Context(), "pods/", kubernetes.ListOptions{Limit: 10})
		require.NoError(t, err)
		require.Len(t, list.Kvs, 1)
		gone, err := k.OptimisticDelete(t.Context(), "pods/a", put.Revision, kubernetes.DeleteOptions{})
		require.NoError(t, err)
		require.True(t, gone.Succeeded)
	})
}

// A client finds the endpoints of all members.
func TestClientSyncsEndpoints(t *testing.T) {
	n := open(t)
	addr := serve(t, n)
	require.NoError(t, n.UpdateMetadata(t.Context(), n.ID(), map[string]string{etcdapi.MetadataClientURLs: "http://" + addr}))
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Sync(t.Context()))
	require.Equal(t, []string{"http://" + addr}, c.Endpoints())
	_, err = c.Put(t.Context(), "k", "v")
	require.NoError(t, err)
}

func TestRecipes(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		q := recipe.NewQueue(c, "queue")
		taken := make(chan string, 2)
		take := func() {
			v, err := q.Dequeue()
			taken <- fmt.Sprint(v, err)
		}
		go take()
		require.NoError(t, q.Enqueue("item"))
		require.Equal(t, "item<nil>", <-taken)

		p := recipe.NewPriorityQueue(c, "priorities")
		require.NoError(t, p.Enqueue("later", 2))
		require.NoError(t, p.Enqueue("sooner", 1))
		v, err := p.Dequeue()
		require.NoError(t, err)
		require.Equal(t, "sooner", v)

		b := recipe.NewBarrier(c, "barrier")
		require.NoError(t, b.Hold())
		passed := make(chan error, 2)
		go func() { passed <- recipe.NewBarrier(c, "barrier").Wait() }()
		require.NoError(t, b.Release())
		require.NoError(t, <-passed)

		for range 2 {
			s := session(t, c)
			go func() {
				d := recipe.NewDoubleBarrier(s, "double", 2)
				passed <- errors.Join(d.Enter(), d.Leave())
			}()
		}
		require.NoError(t, <-passed)
		require.NoError(t, <-passed)

		reader, writer := recipe.NewRWMutex(session(t, c), "rw"), recipe.NewRWMutex(session(t, c), "rw")
		require.NoError(t, reader.RLock())
		go func() { passed <- writer.Lock() }()
		require.NoError(t, reader.RUnlock())
		require.NoError(t, <-passed)
	})
}

// A program that uses only the client notices that the node has closed.
func TestClientOfAClosedNode(t *testing.T) {
	n := open(t)
	c := etcdapi.NewClient(n)
	changes := c.Watch(t.Context(), "k", clientv3.WithCreatedNotify())
	require.True(t, (<-changes).Created)
	require.NoError(t, n.Close())
	_, err := c.Put(t.Context(), "k", "v")
	require.ErrorIs(t, err, rpctypes.ErrStopped)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.Grant(ctx, 60)
	require.ErrorIs(t, err, rpctypes.ErrStopped)
	require.NoError(t, c.Close())
	for last := range changes { // clientv3 may send the error of the watch before it closes the channel
		require.True(t, last.Canceled)
		require.Empty(t, last.Events)
	}
}
