// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
)

// fill writes random keys with leases, deletions and transactions, and compacts. Without transactions, every revision
// changes one key.
func fill(t *testing.T, c *clientv3.Client, transactions bool) {
	t.Helper()
	ctx := t.Context()
	r := rand.New(rand.NewPCG(3, 4))
	var leases []clientv3.LeaseID
	for i := range 4 {
		l, err := c.Grant(ctx, int64(1000*(i+1)))
		require.NoError(t, err)
		leases = append(leases, l.ID)
	}
	key := func() string { return fmt.Sprint("k", r.IntN(50)) }
	for i := range 400 {
		var err error
		switch n := r.IntN(10); {
		case n == 0:
			_, err = c.Delete(ctx, key())
		case n == 1:
			_, err = c.Put(ctx, key(), "leased", clientv3.WithLease(leases[r.IntN(len(leases))]))
		case n == 2 && transactions:
			_, err = c.Txn(ctx).Then(
				clientv3.OpPut(fmt.Sprint("z", i%7), "1"), clientv3.OpPut(fmt.Sprint("a", i%5), "2"),
				clientv3.OpDelete("k1", clientv3.WithPrefix()),
			).Commit()
		default:
			_, err = c.Put(ctx, key(), fmt.Sprint("value\x00\xff", i))
		}
		require.NoError(t, err)
		if i == 300 {
			s, err := c.Get(ctx, "k")
			require.NoError(t, err)
			_, err = c.Compact(ctx, s.Header.Revision-50, clientv3.WithCompactPhysical())
			require.NoError(t, err)
		}
	}
	_, err := c.Revoke(ctx, leases[3])
	require.NoError(t, err)
}

// A dump is everything that a client can read.
type dump struct {
	Revision int64
	Keys     []*mvccpb.KeyValue // at the newest revision
	Compact  []*mvccpb.KeyValue // at the compact revision
	Events   []*clientv3.Event  // since the compact revision
	Leases   map[clientv3.LeaseID]int64
}

// dumpOf reads everything from a store with a known compact revision.
func dumpOf(t *testing.T, c *clientv3.Client, compact int64) (d dump) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	all, err := c.Get(ctx, "\x00", clientv3.WithFromKey())
	require.NoError(t, err)
	d.Revision, d.Keys = all.Header.Revision, all.Kvs
	if compact > 0 {
		old, err := c.Get(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(compact))
		require.NoError(t, err)
		d.Compact = old.Kvs
		_, err = c.Get(ctx, "k", clientv3.WithRev(compact-1))
		require.ErrorContains(t, err, "compacted")
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	for r := range c.Watch(watching, "\x00", clientv3.WithFromKey(), clientv3.WithRev(max(compact, 1))) {
		require.NoError(t, r.Err())
		d.Events = append(d.Events, r.Events...)
		if len(r.Events) > 0 && r.Events[len(r.Events)-1].Kv.ModRevision == d.Revision {
			break
		}
	}
	leases, err := c.Leases(ctx)
	require.NoError(t, err)
	d.Leases = map[clientv3.LeaseID]int64{}
	for _, l := range leases.Leases {
		ttl, err := c.TimeToLive(ctx, l.ID)
		require.NoError(t, err)
		d.Leases[l.ID] = ttl.GrantedTTL
	}
	return d
}

// requireEqual compares dumps by their JSON: messages have internal fields.
func requireEqual(t *testing.T, want, got dump) {
	t.Helper()
	a, err := json.Marshal(want)
	require.NoError(t, err)
	b, err := json.Marshal(got)
	require.NoError(t, err)
	require.Equal(t, string(a), string(b))
}

// save saves a snapshot with etcdctl.
func save(t *testing.T, endpoint string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "saved.db")
	run(t, etcdctl, "--endpoints", endpoint, "snapshot", "save", name)
	return name
}

// restored starts an etcd from a snapshot.
func restored(t *testing.T, snapshot string, args ...string) *server {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	peer := "http://127.0.0.1:1"
	run(t, etcdutl, append([]string{"snapshot", "restore", snapshot, "--name", "m", "--data-dir", dir,
		"--initial-cluster", "m=" + peer, "--initial-advertise-peer-urls", peer}, args...)...)
	return startEtcd(t, dir)
}

// moved opens a node from an etcd snapshot.
func moved(t *testing.T, snapshot string, opts ...etcdsnapshot.Option) *coterie.Node {
	t.Helper()
	cfg := coterie.Config{
		Dir: filepath.Join(t.TempDir(), "data"), Retention: coterie.Retention{Age: -1, Revisions: -1, Bytes: -1},
		Logger: slog.New(slog.DiscardHandler),
	}
	require.NoError(t, etcdsnapshot.Restore(t.Context(), snapshot, cfg, opts...))
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	require.NoError(t, n.Ready(t.Context()))
	return n
}

// written writes the snapshot of a node.
func written(t *testing.T, n *coterie.Node) string {
	t.Helper()
	c, err := n.Contents(t.Context())
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "written.db")
	f, err := os.Create(name)
	require.NoError(t, err)
	require.NoError(t, etcdsnapshot.Write(t.Context(), f, c))
	require.NoError(t, f.Close())
	return name
}

func TestMoveFromEtcdAndBack(t *testing.T) {
	for name, transactions := range map[string]bool{"single changes": false, "transactions": true} {
		t.Run(name, func(t *testing.T) {
			first := startEtcd(t, filepath.Join(t.TempDir(), "data"))
			fill(t, first.Client, transactions)
			want, err := first.HashKV(t.Context(), first.client, 0)
			require.NoError(t, err)
			before := dumpOf(t, first.Client, want.CompactRevision)

			node := moved(t, save(t, first.client))
			require.Equal(t, want.HashRevision, node.Status().Revision)
			require.Equal(t, want.CompactRevision, node.Status().CompactRevision)
			here := etcdapi.NewClient(node)
			defer here.Close()
			requireEqual(t, before, dumpOf(t, here, want.CompactRevision))

			second := restored(t, written(t, node))
			requireEqual(t, before, dumpOf(t, second.Client, want.CompactRevision))
			got, err := second.HashKV(t.Context(), second.client, 0)
			require.NoError(t, err)
			require.Equal(t, want.CompactRevision, got.CompactRevision)
			require.Equal(t, want.HashRevision, got.HashRevision)
			if !transactions { // otherwise older changes of one revision may have other numbers
				require.Equal(t, want.Hash, got.Hash)
			}

			// All three continue in the same way.
			for _, c := range []*clientv3.Client{first.Client, here, second.Client} {
				r, err := c.Put(t.Context(), "k1", "next", clientv3.WithPrevKV())
				require.NoError(t, err)
				require.Equal(t, before.Revision+1, r.Header.Revision)
				_, err = c.Compact(t.Context(), r.Header.Revision)
				require.NoError(t, err)
			}
			after := dumpOf(t, first.Client, before.Revision+1)
			requireEqual(t, after, dumpOf(t, here, before.Revision+1))
			requireEqual(t, after, dumpOf(t, second.Client, before.Revision+1))
		})
	}
}

func TestSnapshotStatusOfNode(t *testing.T) {
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer n.Close()
	require.NoError(t, n.Ready(t.Context()))
	c := etcdapi.NewClient(n)
	defer c.Close()
	fill(t, c, true)
	var status struct {
		Hash      uint32
		Revision  int64
		TotalKey  int
		TotalSize int64
		Version   string
	}
	require.NoError(t, json.Unmarshal([]byte(run(t, etcdutl, "snapshot", "status", written(t, n), "-w", "json")), &status))
	require.Equal(t, n.Status().Revision, status.Revision)
	require.Equal(t, n.Status().Keys, status.TotalKey)
	require.Equal(t, etcdsnapshot.StorageVersion, status.Version)
	own, err := etcdsnapshot.ReadStatus(t.Context(), written(t, n))
	require.NoError(t, err)
	require.Equal(t, status.Hash, own.Hash)
	require.Equal(t, status.TotalSize, own.TotalSize)

	s := restored(t, written(t, n))
	compact := n.Status().CompactRevision
	requireEqual(t, dumpOf(t, c, compact), dumpOf(t, s.Client, compact))
}

func TestMoveFromDatabaseOfStoppedEtcd(t *testing.T) {
	s := startEtcd(t, filepath.Join(t.TempDir(), "data"))
	fill(t, s.Client, true)
	h, err := s.HashKV(t.Context(), s.client, 0)
	require.NoError(t, err)
	before := dumpOf(t, s.Client, h.CompactRevision)
	s.stop()
	database := filepath.Join(s.dir, "member", "snap", "db")
	_, err = etcdsnapshot.Read(t.Context(), database)
	require.ErrorIs(t, err, coterie.ErrCorrupt, "it has no checksum")
	c := etcdapi.NewClient(moved(t, database, etcdsnapshot.WithSkipHashCheck()))
	defer c.Close()
	requireEqual(t, before, dumpOf(t, c, h.CompactRevision))
}

func TestMoveFromEtcdWithBumpedRevision(t *testing.T) {
	first := startEtcd(t, filepath.Join(t.TempDir(), "data"))
	fill(t, first.Client, false)
	bumped := restored(t, save(t, first.client), "--bump-revision", "1000", "--mark-compacted")
	all, err := bumped.Get(t.Context(), "\x00", clientv3.WithFromKey())
	require.NoError(t, err)
	n := moved(t, save(t, bumped.client))
	require.Equal(t, all.Header.Revision, n.Status().Revision)
	c := etcdapi.NewClient(n)
	defer c.Close()
	here, err := c.Get(t.Context(), "\x00", clientv3.WithFromKey())
	require.NoError(t, err)
	requireEqual(t, dump{Keys: all.Kvs}, dump{Keys: here.Kvs})
	second := restored(t, written(t, n))
	there, err := second.Get(t.Context(), "\x00", clientv3.WithFromKey())
	require.NoError(t, err)
	require.Equal(t, all.Header.Revision, there.Header.Revision)
	requireEqual(t, dump{Keys: all.Kvs}, dump{Keys: there.Kvs})
}

// etcdctl saves a snapshot of a node as of an etcd.
func TestEtcdctlSavesSnapshotOfNode(t *testing.T) {
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer n.Close()
	require.NoError(t, n.Ready(t.Context()))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- etcdapi.Serve(ctx, l, n) }()
	defer func() { stop(); <-served }()
	c := etcdapi.NewClient(n)
	defer c.Close()
	fill(t, c, true)
	s := restored(t, save(t, l.Addr().String()))
	compact := n.Status().CompactRevision
	requireEqual(t, dumpOf(t, c, compact), dumpOf(t, s.Client, compact))
}

// Users keep their passwords and permissions.
func TestUsersMoveFromEtcdAndBack(t *testing.T) {
	first := startEtcd(t, filepath.Join(t.TempDir(), "data"))
	ctx := t.Context()
	ok := func(_ any, err error) { t.Helper(); require.NoError(t, err) }
	ok(first.RoleAdd(ctx, "r"))
	ok(first.RoleGrantPermission(ctx, "r", "a", "b", clientv3.PermissionType(clientv3.PermReadWrite)))
	ok(first.RoleGrantPermission(ctx, "r", "z", "\x00", clientv3.PermissionType(clientv3.PermRead)))
	ok(first.UserAdd(ctx, "root", "secret"))
	ok(first.UserGrantRole(ctx, "root", "root"))
	ok(first.UserAdd(ctx, "u", "password"))
	ok(first.UserGrantRole(ctx, "u", "r"))
	ok(first.UserAddWithOptions(ctx, "cn", "", &clientv3.UserAddOptions{NoPassword: true}))
	snapshot := save(t, first.client) // while the client still needs no password
	ok(first.AuthEnable(ctx))
	first.stop()
	for name, source := range map[string]struct {
		file    string
		opts    []etcdsnapshot.Option
		enabled bool
	}{
		"disabled": {snapshot, nil, false},
		"enabled":  {filepath.Join(first.dir, "member", "snap", "db"), []etcdsnapshot.Option{etcdsnapshot.WithSkipHashCheck()}, true},
	} {
		t.Run(name, func(t *testing.T) {
			n := moved(t, source.file, source.opts...)
			s, err := n.AuthStatus(ctx)
			require.NoError(t, err)
			require.Equal(t, source.enabled, s.Enabled)
			back := restored(t, written(t, n))
			if !source.enabled {
				ok(back.AuthEnable(ctx))
			}
			u, err := clientv3.New(clientv3.Config{
				Endpoints: []string{back.client}, Username: "u", Password: "password", Logger: zap.NewNop(),
			})
			require.NoError(t, err)
			defer u.Close()
			ok(u.Put(ctx, "a1", "v"))
			_, err = u.Put(ctx, "z", "v")
			require.ErrorContains(t, err, "permission denied")
			ok(u.Get(ctx, "zz"))
		})
	}
}
