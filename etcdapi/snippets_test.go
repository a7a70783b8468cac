// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// programs runs a test with the clients of [clients], with clients that use TLS, with clients of a user, and with
// clients of three nodes. Each has a new store.
func programs(t *testing.T, test func(t *testing.T, c *clientv3.Client)) {
	clients(t, test)
	for name, cluster := range map[string]struct {
		nodes        int
		secure, user bool
	}{
		"TLS":                           {1, true, false},
		"a user":                        {1, false, true},
		"three nodes":                   {3, false, false},
		"a user of three nodes and TLS": {3, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := clientv3.Config{DialTimeout: 10 * time.Second, Logger: zap.NewNop()}
			opts := []etcdapi.Option{cheap}
			if cluster.secure {
				server, client := secure(t)
				opts, cfg.TLS = append(opts, etcdapi.WithTLS(server)), client
			}
			nodes := openCluster(t, cluster.nodes)
			for _, n := range nodes {
				cfg.Endpoints = append(cfg.Endpoints, serve(t, n, opts...))
			}
			if cluster.user {
				cfg.Username, cfg.Password = admit(t, nodes[0])
			}
			c, err := clientv3.New(cfg)
			require.NoError(t, err)
			defer c.Close()
			test(t, c)
		})
	}
}

// admit adds a user that may read and write every key, enables the checks of permissions, and returns the user's name
// and password.
func admit(t testing.TB, n *coterie.Node) (name, password string) {
	t.Helper()
	addUser(t, n, "root")
	addUser(t, n, "app", coterie.Permission{Type: coterie.PermReadWrite, Key: "\x00", RangeEnd: "\x00"})
	_, err := n.AuthEnable(t.Context())
	require.NoError(t, err)
	return "app", "app's password"
}

// secure returns the configurations of endpoints that require certificates of clients, and of their clients.
// Programs with clientv3 make theirs from files in this way.
func secure(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	ca := newAuthority(t, "CA")
	files := newPEMFiles(t, ca)
	files.ClientCAFile = filepath.Join(t.TempDir(), "ca.pem")
	files.write(files.ClientCAFile, "CERTIFICATE", ca.cert.Raw)
	server, err := etcdapi.LoadTLS(files.TLS)
	require.NoError(t, err)
	info := transport.TLSInfo{TrustedCAFile: files.ClientCAFile, CertFile: files.CertFile, KeyFile: files.KeyFile}
	client, err = info.ClientConfig()
	require.NoError(t, err)
	return server, client
}

// openCluster opens nodes of one cluster, for one test.
func openCluster(t testing.TB, nodes int) []*coterie.Node {
	t.Helper()
	if nodes == 1 {
		return []*coterie.Node{open(t)}
	}
	c, err := coterie.OpenCluster(t.Context(), nodes, coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c.Nodes()
}

// keysOf returns the keys of a response, in its order.
func keysOf(r *clientv3.GetResponse) (keys []string) {
	for _, kv := range r.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

func idsOf(members []*pb.Member) (ids []uint64) {
	for _, m := range members {
		ids = append(ids, m.ID)
	}
	return ids
}

func TestSnippetPut(t *testing.T) {
	programs(t, func(t *testing.T, c *clientv3.Client) {
		kv := clientv3.NewKV(c)
		r, err := kv.Put(t.Context(), "/job1", "a")
		require.NoError(t, err)
		require.EqualValues(t, 2, r.Header.Revision)
		require.NotZero(t, r.Header.ClusterId)
		require.NotZero(t, r.Header.MemberId)
		require.NotZero(t, r.Header.RaftTerm)
		require.Nil(t, r.PrevKv)
		r, err = kv.Put(t.Context(), "/job1", "b", clientv3.WithPrevKV())
		require.NoError(t, err)
		require.EqualValues(t, 3, r.Header.Revision)
		require.Equal(t, "a", string(r.PrevKv.Value))
		require.EqualValues(t, 1, r.PrevKv.Version)
	})
}

func TestSnippetGet(t *testing.T) {
	programs(t, func(t *testing.T, c *clientv3.Client) {
		kv := clientv3.NewKV(c)
		for i, value := range []string{"d", "c", "b", "a", "a"} { // revisions 2 to 6
			_, err := kv.Put(t.Context(), fmt.Sprint("/job", i%4+1), value)
			require.NoError(t, err)
		}
		get := func(key string, opts ...clientv3.OpOption) *clientv3.GetResponse {
			t.Helper()
			r, err := kv.Get(t.Context(), key, opts...)
			require.NoError(t, err)
			return r
		}
		one := get("/job1")
		require.EqualValues(t, 6, one.Header.Revision)
		require.Equal(t, "/job1", string(one.Kvs[0].Key))
		require.Equal(t, "a", string(one.Kvs[0].Value))
		require.EqualValues(t, []int64{2, 6, 2}, []int64{one.Kvs[0].CreateRevision, one.Kvs[0].ModRevision, one.Kvs[0].Version})

		require.Equal(t, []string{"/job1", "/job2", "/job3", "/job4"}, keysOf(get("/job", clientv3.WithPrefix())))
		require.Equal(t, []string{"/job2", "/job3"}, keysOf(get("/job2", clientv3.WithRange("/job4"))))
		for target, ascending := range map[clientv3.SortTarget][]string{
			clientv3.SortByKey:            {"/job1", "/job2", "/job3", "/job4"},
			clientv3.SortByValue:          {"/job1", "/job4", "/job3", "/job2"},
			clientv3.SortByCreateRevision: {"/job1", "/job2", "/job3", "/job4"},
			clientv3.SortByModRevision:    {"/job2", "/job3", "/job4", "/job1"},
			clientv3.SortByVersion:        {"/job2", "/job3", "/job4", "/job1"},
		} {
			require.Equal(t, ascending, keysOf(get("/job", clientv3.WithPrefix(), clientv3.WithSort(target, clientv3.SortAscend))), target)
			last := get("/job", clientv3.WithPrefix(), clientv3.WithSort(target, clientv3.SortDescend))
			if target != clientv3.SortByValue && target != clientv3.SortByVersion { // these have equal ones
				require.Equal(t, ascending[3], keysOf(last)[0], target)
			}
		}
		count := get("/job", clientv3.WithPrefix(), clientv3.WithCountOnly())
		require.EqualValues(t, 4, count.Count)
		require.Empty(t, count.Kvs)
		require.Zero(t, get("/none", clientv3.WithCountOnly()).Count)

		page := get("/job1", clientv3.WithFromKey(), clientv3.WithLimit(3))
		require.Equal(t, []string{"/job1", "/job2", "/job3"}, keysOf(page))
		require.True(t, page.More)
		page = get(string(page.Kvs[2].Key)+"\x00", clientv3.WithFromKey(), clientv3.WithLimit(3))
		require.Equal(t, []string{"/job4"}, keysOf(page))
		require.False(t, page.More)
	})
}

func TestSnippetDelete(t *testing.T) {
	programs(t, func(t *testing.T, c *clientv3.Client) {
		kv := clientv3.NewKV(c)
		for _, key := range []string{"/job1", "/job2", "/job3"} {
			_, err := kv.Put(t.Context(), key, "v")
			require.NoError(t, err)
		}
		r, err := kv.Delete(t.Context(), "/job1")
		require.NoError(t, err)
		require.EqualValues(t, 1, r.Deleted)
		require.Empty(t, r.PrevKvs)
		r, err = kv.Delete(t.Context(), "/job", clientv3.WithPrefix(), clientv3.WithPrevKV())
		require.NoError(t, err)
		require.EqualValues(t, 2, r.Deleted)
		require.Equal(t, "/job2", string(r.PrevKvs[0].Key))
		require.Equal(t, "v", string(r.PrevKvs[1].Value))
		r, err = kv.Delete(t.Context(), "/job", clientv3.WithPrefix())
		require.NoError(t, err)
		require.Zero(t, r.Deleted)
		require.EqualValues(t, 6, r.Header.Revision)
	})
}

func TestSnippetTxn(t *testing.T) {
	programs(t, func(t *testing.T, c *clientv3.Client) {
		kv := clientv3.NewKV(c)
		_, err := kv.Put(t.Context(), "age", "2")
		require.NoError(t, err)
		decide := func() *clientv3.TxnResponse {
			r, err := kv.Txn(t.Context()).If(clientv3.Compare(clientv3.Value("age"), ">", "10")).
				Then(clientv3.OpPut("adult", "yes")).Else(clientv3.OpPut("adult", "no"), clientv3.OpPut("age", "09")).Commit()
			require.NoError(t, err)
			return r
		}
		require.True(t, decide().Succeeded) // "2" > "10": bytes, not numbers
		_, err = kv.Put(t.Context(), "age", "1")
		require.NoError(t, err)
		r := decide()
		require.False(t, r.Succeeded)
		require.Len(t, r.Responses, 2)
		got, err := kv.Get(t.Context(), "age")
		require.NoError(t, err)
		require.Equal(t, "09", string(got.Kvs[0].Value))
		require.Equal(t, r.Header.Revision, got.Kvs[0].ModRevision)
	})
}

func TestSnippetLease(t *testing.T) {
	programs(t, func(t *testing.T, c *clientv3.Client) {
		lease := clientv3.NewLease(c)
		granted, err := lease.Grant(t.Context(), 300)
		require.NoError(t, err)
		require.Positive(t, granted.ID)
		require.EqualValues(t, 300, granted.TTL)
		for _, key := range []string{"k1", "k2"} {
			_, err = c.Put(t.Context(), key, "v", clientv3.WithLease(granted.ID))
			require.NoError(t, err)
		}
		got, err := c.Get(t.Context(), "k1")
		require.NoError(t, err)
		require.EqualValues(t, granted.ID, got.Kvs[0].Lease)
		once, err := lease.KeepAliveOnce(t.Context(), granted.ID)
		require.NoError(t, err)
		require.EqualValues(t, 300, once.TTL)
		ctx, stop := context.WithCancel(t.Context())
		alive, err := lease.KeepAlive(ctx, granted.ID)
		require.NoError(t, err)
		first := <-alive
		require.Equal(t, granted.ID, first.ID)
		require.EqualValues(t, 300, first.TTL)
		stop()
		for range alive { // the channel closes
		}
		left, err := lease.TimeToLive(t.Context(), granted.ID, clientv3.WithAttachedKeys())
		require.NoError(t, err)
		require.EqualValues(t, 300, left.GrantedTTL)
		require.InDelta(t, 300, left.TTL, 30)
		require.ElementsMatch(t, [][]byte{[]byte("k1"), []byte("k2")}, left.Keys)
		_, err = lease.Revoke(t.Context(), granted.ID)
		require.NoError(t, err)
		got, err = c.Get(t.Context(), "k", clientv3.WithPrefix())
		require.NoError(t, err)
		require.Empty(t, got.Kvs)
		left, err = lease.TimeToLive(t.Context(), granted.ID, clientv3.WithAttachedKeys())
		require.NoError(t, err)
		require.EqualValues(t, -1, left.TTL)
		require.Zero(t, left.GrantedTTL)
		require.Empty(t, left.Keys)
	})
}

func TestSnippetWatch(t *testing.T) {
	programs(t, func(t *testing.T, c *clientv3.Client) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		watch := func(key string, opts ...clientv3.OpOption) clientv3.WatchChan {
			w := c.Watch(ctx, key, append(opts, clientv3.WithCreatedNotify())...)
			require.True(t, (<-w).Created)
			return w
		}
		one, prefix, some := watch("job1"), watch("job", clientv3.WithPrefix()), watch("job1", clientv3.WithRange("job3"))
		for _, key := range []string{"job1", "job2", "job3"} {
			_, err := c.Put(t.Context(), key, "v")
			require.NoError(t, err)
		}
		_, err := c.Delete(t.Context(), "job1")
		require.NoError(t, err)
		seen := func(w clientv3.WatchChan, n int) (events []string) {
			for len(events) < n {
				for _, e := range (<-w).Events {
					events = append(events, fmt.Sprint(e.Type, " ", string(e.Kv.Key), " ", string(e.Kv.Value)))
				}
			}
			return events
		}
		require.Equal(t, []string{"PUT job1 v", "DELETE job1 "}, seen(one, 2))
		require.Equal(t, []string{"PUT job1 v", "PUT job2 v", "PUT job3 v", "DELETE job1 "}, seen(prefix, 4))
		require.Equal(t, []string{"PUT job1 v", "PUT job2 v", "DELETE job1 "}, seen(some, 3))
		cancel()
		for _, w := range []clientv3.WatchChan{one, prefix, some} {
			for range w { // the channel closes
			}
		}
	})
}

func TestSnippetWatchProgress(t *testing.T) {
	addr := serve(t, open(t), etcdapi.WithProgressInterval(100*time.Millisecond))
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, DialTimeout: 5 * time.Second})
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Put(t.Context(), "job", "v")
	require.NoError(t, err)
	progress := <-c.Watch(t.Context(), "job", clientv3.WithProgressNotify())
	require.True(t, progress.IsProgressNotify())
	require.EqualValues(t, 2, progress.Header.Revision)
}

// A lock without package concurrency: a key that only the first caller creates, with the lease of its holder.
func TestSnippetLock(t *testing.T) {
	programs(t, func(t *testing.T, c *clientv3.Client) {
		lock := func() (held bool, holder string, release func()) {
			granted, err := c.Grant(t.Context(), 5)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			alive, err := c.KeepAlive(ctx, granted.ID)
			require.NoError(t, err)
			require.EqualValues(t, 5, (<-alive).TTL)
			r, err := c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision("/lock"), "=", 0)).
				Then(clientv3.OpPut("/lock", fmt.Sprint(granted.ID), clientv3.WithLease(granted.ID))).
				Else(clientv3.OpGet("/lock")).Commit()
			require.NoError(t, err)
			if !r.Succeeded {
				holder = string(r.Responses[0].GetResponseRange().Kvs[0].Value)
			}
			return r.Succeeded, holder, func() {
				cancel()
				_, err := c.Revoke(t.Context(), granted.ID)
				require.NoError(t, err)
			}
		}
		held, _, release := lock()
		require.True(t, held)
		again, holder, giveUp := lock()
		require.False(t, again)
		require.NotEmpty(t, holder)
		giveUp()
		changes := c.Watch(t.Context(), "/lock", clientv3.WithCreatedNotify())
		<-changes
		release()
		require.Equal(t, mvccpb.Event_DELETE, (<-changes).Events[0].Type)
		held, _, release = lock()
		require.True(t, held)
		release()
	})
}

// Constructors that take a client work with one that has no connection.
func TestServicesOfAClient(t *testing.T) {
	programs(t, func(t *testing.T, c *clientv3.Client) {
		_, err := clientv3.NewKV(c).Put(t.Context(), "k", "v")
		require.NoError(t, err)
		w := clientv3.NewWatcher(c)
		require.Equal(t, "k", string((<-w.Watch(t.Context(), "k", clientv3.WithRev(1))).Events[0].Kv.Key))
		require.NoError(t, w.Close())
		l := clientv3.NewLease(c)
		granted, err := l.Grant(t.Context(), 60)
		require.NoError(t, err)
		_, err = l.KeepAliveOnce(t.Context(), granted.ID)
		require.NoError(t, err)
		require.NoError(t, l.Close())
		all, err := clientv3.NewCluster(c).MemberList(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, all.Members)
		status, err := clientv3.NewMaintenance(c).Status(t.Context(), c.Endpoints()[0])
		require.NoError(t, err)
		require.Contains(t, idsOf(all.Members), status.Leader)
		_, err = clientv3.NewAuth(c).AuthStatus(t.Context())
		require.NoError(t, err)
		r, err := pb.NewKVClient(c.ActiveConnection()).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
		require.NoError(t, err)
		require.EqualValues(t, 1, r.Count)
	})
}
