// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
)

func TestSnapshotsAreReadAsWritten(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, n *coterie.Node){
		"empty":      func(*testing.T, *coterie.Node) {},
		"history":    func(t *testing.T, n *coterie.Node) { fill(t, n, 300, false) },
		"compacted":  func(t *testing.T, n *coterie.Node) { fill(t, n, 300, true) },
		"users":      func(t *testing.T, n *coterie.Node) { addUsers(t, n) },
		"many pages": func(t *testing.T, n *coterie.Node) { fill(t, n, 5000, true); addUsers(t, n) },
		"compacted to the end": func(t *testing.T, n *coterie.Node) {
			fill(t, n, 30, false)
			_, err := n.Delete(t.Context(), "k", coterie.WithPrefix())
			require.NoError(t, err)
			_, err = n.Compact(t.Context(), n.Status().Revision)
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := open(t)
			prepare(t, n)
			want := contents(t, n)
			got, err := etcdsnapshot.Read(t.Context(), write(t, want))
			require.NoError(t, err)
			requireEqual(t, want, got)
		})
	}
}

func TestRestoreMakesANode(t *testing.T) {
	n := open(t)
	fill(t, n, 200, true)
	want := contents(t, n)
	name := write(t, want)
	cfg := coterie.Config{Dir: filepath.Join(t.TempDir(), "data")}
	require.NoError(t, etcdsnapshot.Restore(t.Context(), name, cfg))
	require.ErrorIs(t, etcdsnapshot.Restore(t.Context(), name, cfg), coterie.ErrDirNotEmpty)
	restored, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	defer restored.Close()
	require.NoError(t, restored.Ready(t.Context()))
	requireEqual(t, want, contents(t, restored))
	r, err := restored.Put(t.Context(), "k", "v")
	require.NoError(t, err)
	require.Equal(t, want.Revision()+1, r.Revision)
}

func TestFoundersBeginWithOneSnapshot(t *testing.T) {
	n := open(t)
	fill(t, n, 50, true)
	want := contents(t, n)
	name, network := write(t, want), coterie.NewMemoryNetwork()
	founders := []coterie.Founder{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1"}, {Name: "c", Addr: "c:1"}}
	var nodes []*coterie.Node
	for _, f := range founders {
		cfg := coterie.Config{
			Name: f.Name, Addr: f.Addr, Advertise: f.Addr, Network: network, Founders: founders, Dir: filepath.Join(t.TempDir(), f.Name),
			Logger: slog.New(slog.DiscardHandler),
		}
		require.NoError(t, etcdsnapshot.Restore(t.Context(), name, cfg))
		n, err := coterie.Open(t.Context(), cfg)
		require.NoError(t, err)
		defer n.Close()
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		require.NoError(t, n.Ready(t.Context()))
		requireEqual(t, want, contents(t, n))
	}
	r, err := nodes[2].Put(t.Context(), "k", "v")
	require.NoError(t, err)
	require.Equal(t, want.Revision()+1, r.Revision)
}

func TestRestoreOfDamagedSnapshotWritesNothing(t *testing.T) {
	name := write(t, contents(t, open(t)))
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	b[100] ^= 1
	cfg := coterie.Config{Dir: filepath.Join(t.TempDir(), "data")}
	require.ErrorIs(t, etcdsnapshot.Restore(t.Context(), file(t, b), cfg), coterie.ErrCorrupt)
	_, err = os.Stat(cfg.Dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, etcdsnapshot.Restore(t.Context(), name, coterie.Config{}), coterie.ErrInvalidOption)
}

func TestDamageOfSnapshotIsFound(t *testing.T) {
	n := open(t)
	fill(t, n, 100, true)
	addUsers(t, n)
	whole, err := os.ReadFile(write(t, contents(t, n)))
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "damaged")
	read := func(b []byte, opts ...etcdsnapshot.Option) error {
		require.NoError(t, os.WriteFile(name, b, 0o600))
		_, err := etcdsnapshot.Read(t.Context(), name, opts...)
		return err
	}
	for at := 0; at < len(whole); at += 997 {
		require.ErrorIs(t, read(whole[:at]), coterie.ErrCorrupt, "cut at %d", at)
		require.ErrorIs(t, read(whole[:at], etcdsnapshot.WithSkipHashCheck()), coterie.ErrCorrupt, "cut at %d", at)
	}
	for at := 0; at < len(whole); at += 61 {
		damaged := bytes.Clone(whole)
		damaged[at] ^= byte(1 + at%255)
		require.ErrorIs(t, read(damaged), coterie.ErrCorrupt, "flipped at %d", at)
		if err := read(damaged, etcdsnapshot.WithSkipHashCheck()); err != nil {
			require.ErrorIs(t, err, coterie.ErrCorrupt, "flipped at %d", at)
		}
	}
	require.ErrorIs(t, read(append(bytes.Clone(whole), make([]byte, 512)...)), coterie.ErrCorrupt)
}

func TestReadErrors(t *testing.T) {
	_, err := etcdsnapshot.Read(t.Context(), filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	name := write(t, contents(t, open(t)))
	_, err = etcdsnapshot.Read(ctx, name)
	require.ErrorIs(t, err, context.Canceled)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	database := file(t, b[:len(b)-sha256.Size])
	_, err = etcdsnapshot.Read(t.Context(), database)
	require.ErrorIs(t, err, coterie.ErrCorrupt)
	require.ErrorContains(t, err, "checksum")
	_, err = etcdsnapshot.Read(t.Context(), database, etcdsnapshot.WithSkipHashCheck())
	require.NoError(t, err)
}

// edited returns a database in which fn has changed the bucket of keys, and meta.
func edited(t testing.TB, c *coterie.Contents, fn func(key, meta, lease *bolt.Bucket) error) string {
	t.Helper()
	b, err := os.ReadFile(write(t, c))
	require.NoError(t, err)
	name := file(t, b[:len(b)-sha256.Size])
	db, err := bolt.Open(name, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bolt.Tx) error {
		return fn(tx.Bucket([]byte("key")), tx.Bucket([]byte("meta")), tx.Bucket([]byte("lease")))
	}))
	require.NoError(t, db.Close())
	return name
}

// rev returns the key of a change.
func rev(main byte, suffix string) []byte {
	return append([]byte{0, 0, 0, 0, 0, 0, 0, main, '_', 0, 0, 0, 0, 0, 0, 0, 0}, suffix...)
}

func TestCompactionThatEtcdHasNotFinished(t *testing.T) {
	n := open(t)
	for _, v := range []string{"2", "3"} {
		_, err := n.Put(t.Context(), "k", v)
		require.NoError(t, err)
	}
	_, err := n.Put(t.Context(), "gone", "4")
	require.NoError(t, err)
	_, err = n.Delete(t.Context(), "gone")
	require.NoError(t, err)
	_, err = n.Put(t.Context(), "k", "6")
	require.NoError(t, err)
	name := edited(t, contents(t, n), func(_, meta, _ *bolt.Bucket) error { return meta.Put([]byte("scheduledCompactRev"), rev(6, "")) })
	got, err := etcdsnapshot.Read(t.Context(), name, etcdsnapshot.WithSkipHashCheck())
	require.NoError(t, err)
	_, err = n.Compact(t.Context(), 6)
	require.NoError(t, err)
	requireEqual(t, contents(t, n), got)
}

// "etcdutl snapshot restore --bump-revision --mark-compacted" leaves such a database.
func TestBumpedRevision(t *testing.T) {
	n := open(t)
	_, err := n.Put(t.Context(), "k", "v")
	require.NoError(t, err)
	name := edited(t, contents(t, n), func(key, meta, _ *bolt.Bucket) error {
		if err := key.Put(rev(100, ""), []byte{}); err != nil {
			return err
		}
		return meta.Put([]byte("scheduledCompactRev"), rev(100, ""))
	})
	c, err := etcdsnapshot.Read(t.Context(), name, etcdsnapshot.WithSkipHashCheck())
	require.NoError(t, err)
	require.EqualValues(t, 100, c.Revision())
	require.EqualValues(t, 100, c.CompactRevision())
	require.Equal(t, []coterie.KeyValue{{Key: "k", Value: "v", CreateRevision: 2, ModRevision: 2, Version: 1}}, collect(c.Versions()))
	again, err := etcdsnapshot.Read(t.Context(), write(t, c))
	require.NoError(t, err)
	requireEqual(t, c, again)
}

func TestKeyOfNoLease(t *testing.T) {
	n := open(t)
	_, err := n.Grant(t.Context(), coterie.MinTTL, coterie.WithGrantID(7))
	require.NoError(t, err)
	for _, key := range []string{"a", "b", "a"} {
		_, err = n.Put(t.Context(), key, "v", coterie.WithLease(7))
		require.NoError(t, err)
	}
	_, err = n.Put(t.Context(), "b", "v")
	require.NoError(t, err)
	name := edited(t, contents(t, n), func(_, _, lease *bolt.Bucket) error { return lease.Delete([]byte{0, 0, 0, 0, 0, 0, 0, 7}) })
	c, err := etcdsnapshot.Read(t.Context(), name, etcdsnapshot.WithSkipHashCheck())
	require.NoError(t, err)
	var leases []coterie.LeaseID
	for kv := range c.Versions() {
		leases = append(leases, kv.Lease)
	}
	require.Equal(t, []coterie.LeaseID{7, 7, 0, 0}, leases, "history stays as it is")
}

func TestImpossibleDatabases(t *testing.T) {
	n := open(t)
	_, err := n.Put(t.Context(), "k", "v")
	require.NoError(t, err)
	value := func(kv *mvccpb.KeyValue) []byte {
		b, err := proto.Marshal(kv)
		require.NoError(t, err)
		return b
	}
	good := value(&mvccpb.KeyValue{Key: []byte("j"), CreateRevision: 3, ModRevision: 3, Version: 1})
	later := value(&mvccpb.KeyValue{Key: []byte("j"), CreateRevision: 4, ModRevision: 4, Version: 1})
	for name, edit := range map[string]func(key, meta, lease *bolt.Bucket) error{
		"a missing revision": func(key, _, _ *bolt.Bucket) error { return key.Put(rev(4, ""), later) },
		"another revision":   func(key, _, _ *bolt.Bucket) error { return key.Put(rev(2, ""), good) },
		"no message":         func(key, _, _ *bolt.Bucket) error { return key.Put(rev(3, ""), []byte{1}) },
		"no revision":        func(key, _, _ *bolt.Bucket) error { return key.Put([]byte("key"), good) },
		"deletes nothing": func(key, _, _ *bolt.Bucket) error {
			return key.Put(rev(3, "t"), value(&mvccpb.KeyValue{Key: []byte("j")}))
		},
		"no compact revision": func(_, meta, _ *bolt.Bucket) error { return meta.Put([]byte("finishedCompactRev"), []byte("?")) },
		"no lease":            func(_, _, lease *bolt.Bucket) error { return lease.Put(rev(1, "")[:8], []byte{0xff}) },
		"another lease":       func(_, _, lease *bolt.Bucket) error { return lease.Put(rev(1, "")[:8], []byte{8, 2, 16, 5}) },
	} {
		_, err := etcdsnapshot.Read(t.Context(), edited(t, contents(t, n), edit), etcdsnapshot.WithSkipHashCheck())
		require.ErrorIs(t, err, coterie.ErrCorrupt, name)
	}
}

// FuzzRead changes three numbers of a database.
func FuzzRead(f *testing.F) {
	n := open(f)
	fill(f, n, 20, true)
	whole, err := os.ReadFile(write(f, contents(f, n)))
	require.NoError(f, err)
	f.Add(uint16(16), uint64(1), uint16(4096), uint64(2), uint16(8192), uint64(1<<63))
	name := filepath.Join(f.TempDir(), "fuzzed")
	f.Fuzz(func(t *testing.T, at1 uint16, to1 uint64, at2 uint16, to2 uint64, at3 uint16, to3 uint64) {
		b := bytes.Clone(whole)
		binary.LittleEndian.PutUint64(b[int(at1)%(len(b)-8):], to1)
		binary.LittleEndian.PutUint32(b[int(at2)%(len(b)-8):], uint32(to2))
		binary.LittleEndian.PutUint16(b[int(at3)%(len(b)-8):], uint16(to3))
		require.NoError(t, os.WriteFile(name, b, 0o600))
		if _, err := etcdsnapshot.Read(t.Context(), name, etcdsnapshot.WithSkipHashCheck()); err != nil {
			require.ErrorIs(t, err, coterie.ErrCorrupt)
		}
	})
}
