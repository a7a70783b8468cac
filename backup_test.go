// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A site is the configuration and the disk, in memory, of a founder.
type site struct {
	coterie.Config
	disk *vfs.Memory
}

// sites returns the sites of n founders, which share a network of their own.
func sites(n int) (all []*site) {
	network := coterie.NewMemoryNetwork()
	var founders []coterie.Founder
	for i := range n {
		founders = append(founders, coterie.Founder{Name: fmt.Sprint("r", i), Addr: fmt.Sprintf("r%d:1", i)})
	}
	for _, p := range founders {
		cfg := coterie.Config{Name: p.Name, Addr: p.Addr, Advertise: p.Addr, Founders: founders, Network: network, Dir: "/data"}
		all = append(all, &site{cfg, vfs.NewForgetful()})
	}
	return all
}

// on returns a context that has a disk.
func on(t testing.TB, disk *vfs.Memory) context.Context { return vfs.With(t.Context(), disk.Mount()) }

func (s *site) restore(t testing.TB, b []byte) error {
	return coterie.RestoreBackup(on(t, s.disk), bytes.NewReader(b), s.Config)
}

// open opens the founder's node, until the end of the test.
func (s *site) open(t testing.TB) *coterie.Node {
	t.Helper()
	n, err := coterie.Open(on(t, s.disk), s.Config)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, n.Check(context.Background()))
		require.NoError(t, n.Close())
	})
	return n
}

// restored restores a backup to n founders, and returns their nodes.
func restored(t testing.TB, b []byte, n int) (nodes []*coterie.Node) {
	t.Helper()
	for _, s := range sites(n) {
		require.NoError(t, s.restore(t, b))
		nodes = append(nodes, s.open(t))
	}
	for _, node := range nodes {
		require.NoError(t, node.Ready(t.Context()))
	}
	return nodes
}

// backup returns a backup of all acknowledged writes.
func backup(t testing.TB, n *coterie.Node) (coterie.Header, []byte) {
	t.Helper()
	require.NoError(t, n.Ready(t.Context()))
	var b bytes.Buffer
	h, err := n.Backup(t.Context(), &b)
	require.NoError(t, err)
	return h.Header, b.Bytes()
}

func hashAt(t testing.TB, n *coterie.Node, rev int64) uint64 {
	t.Helper()
	h, err := n.Hash(t.Context(), rev)
	require.NoError(t, err)
	return h.Hash
}

func TestRestoredClusterContinues(t *testing.T) {
	for _, founders := range []int{1, 3, 5} {
		t.Run(fmt.Sprint("3 to ", founders), func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				first := put(t, c.Leader(), "k", "old")
				put(t, c.Leader(), "gone", "v")
				require.NoError(t, errOf(c.Leader().Compact(t.Context(), first.Revision)))
				id := grant(t, c.Leader(), time.Hour)
				put(t, c.Leader(), "leased", "v", coterie.WithLease(id))
				put(t, c.Leader(), "k", "new")
				del(t, c.Leader(), "gone")
				h, b := backup(t, c.Follower())
				require.Equal(t, get(t, c.Leader(), "k").Revision, h.Revision)
				require.Equal(t, c.Leader().Status().ClusterID, h.ClusterID)
				require.NotContains(t, string(b), c.Leader().Status().Addr, "the members are the cluster's")

				nodes := restored(t, b, founders)
				for _, n := range nodes {
					require.Equal(t, h.Revision, n.Status().Revision)
					require.Equal(t, hashAt(t, c.Leader(), h.Revision), hashAt(t, n, 0))
					require.Equal(t, nodes[0].Status().ClusterID, n.Status().ClusterID)
					require.NotEqual(t, h.ClusterID, n.Status().ClusterID)
					require.Equal(t, founders, n.Status().Voters)
				}
				n := nodes[0]
				require.Equal(t, "old", get(t, n, "k", coterie.WithRevision(first.Revision)).KVs[0].Value, "history is kept")
				require.Equal(t, first.Revision, n.Status().CompactRevision)
				_, err := n.Get(t.Context(), "k", coterie.WithRevision(first.Revision-1))
				require.ErrorIs(t, err, coterie.ErrCompacted)
				require.EqualValues(t, id, get(t, n, "leased").KVs[0].Lease)
				next := put(t, nodes[len(nodes)-1], "k", "newer")
				require.Equal(t, h.Revision+1, next.Revision, "revisions continue")
				var seen []string
				for r, err := range n.Watch(t.Context(), "k", coterie.WithRevision(first.Revision)) {
					require.NoError(t, err)
					for _, e := range r.Events {
						seen = append(seen, e.KV.Value)
					}
					if r.Revision >= next.Revision {
						break
					}
				}
				require.Equal(t, []string{"old", "new", "newer"}, seen)
			})
		})
	}
}

func TestRestoreBeginsAtTheFoundingEntries(t *testing.T) {
	b := smallBackup(t)
	synctest.Test(t, func(t *testing.T) {
		s := sites(3)[1]
		require.NoError(t, s.restore(t, b))
		status := s.open(t).Status()
		require.EqualValues(t, 2, status.Applied)
		require.EqualValues(t, 2, status.Durable)
		require.EqualValues(t, 3, status.Voters)
		require.EqualValues(t, 3, status.Revision)
	})
}

func TestRestoredLeasesBeginTheirTTLAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := open(t)
		put(t, old, "k", "v", coterie.WithLease(grant(t, old, time.Minute)))
		time.Sleep(50 * time.Second)
		_, b := backup(t, old)
		time.Sleep(time.Hour)
		n := restored(t, b, 3)[0]
		time.Sleep(59 * time.Second)
		require.Len(t, get(t, n, "k").KVs, 1)
		time.Sleep(10 * time.Second)
		require.Empty(t, get(t, n, "k").KVs)
		require.Empty(t, get(t, old, "k").KVs)
	})
}

// A slowWriter writes slowly, so that other writes happen in the meantime.
type slowWriter struct {
	bytes.Buffer
	each func()
}

func (w *slowWriter) Write(b []byte) (int, error) {
	w.each()
	return w.Buffer.Write(b)
}

func TestBackupIsOfOneRevisionDuringWrites(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for i := range 200 { // enough for several writes
			put(t, c.Leader(), fmt.Sprint("filler", i), string(make([]byte, 10_000)))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		for i, n := range c.Nodes() {
			writers.Go(func() {
				for j := 0; ctx.Err() == nil; j++ {
					time.Sleep(10 * time.Millisecond)
					value := fmt.Sprint(i, " ", j)
					_, err := n.Txn(ctx).Then(coterie.OpPut("a", value), coterie.OpPut("b", value)).Commit()
					if err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
			})
		}
		time.Sleep(time.Second)
		type taken struct {
			coterie.Header
			b []byte
		}
		var backups []taken
		for _, n := range c.Nodes() {
			begin := n.Status().Revision
			w := &slowWriter{each: func() { time.Sleep(100 * time.Millisecond) }}
			h, err := n.Backup(ctx, w)
			require.NoError(t, err)
			require.Greater(t, n.Status().Revision, begin+100, "the writes continued")
			backups = append(backups, taken{h.Header, w.Bytes()})
		}
		cancel()
		writers.Wait()
		for _, b := range backups {
			n := restored(t, b.b, 1)[0]
			require.Equal(t, b.Revision, n.Status().Revision)
			require.Equal(t, hashAt(t, c.Leader(), b.Revision), hashAt(t, n, 0))
			require.Equal(t, get(t, n, "a").KVs[0].Value, get(t, n, "b").KVs[0].Value)
		}
	})
}

func TestBackupNeedsNoQuorum(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		r := put(t, c.Leader(), "k", "v")
		c.WaitRevision(r.Revision)
		c.Crash(0)
		c.Crash(1)
		var b bytes.Buffer
		h, err := c.Node(2).Backup(t.Context(), &b)
		require.NoError(t, err)
		require.Equal(t, r.Revision, h.Revision)
		require.Equal(t, "v", get(t, restored(t, b.Bytes(), 3)[1], "k").KVs[0].Value)
	})
}

func TestBackupEndsWithContextAndNode(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		for i := range 50 {
			put(t, n, fmt.Sprint(i), string(make([]byte, 10_000)))
		}
		broken := errors.New("broken")
		w := &slowWriter{each: func() {}}
		_, err := n.Backup(t.Context(), io.MultiWriter(w, failingWriter{broken}))
		require.ErrorIs(t, err, broken)

		ctx, cancel := context.WithCancelCause(t.Context())
		w.each = func() { cancel(broken) }
		w.Reset()
		_, err = n.Backup(ctx, w)
		require.ErrorIs(t, err, broken)
		refused := (&site{sites(1)[0].Config, vfs.NewForgetful()}).restore(t, w.Bytes())
		require.ErrorIs(t, refused, coterie.ErrCorrupt, "the incomplete output is not a backup")

		w.each = func() { go n.Close(); time.Sleep(time.Second) }
		_, err = n.Backup(t.Context(), w)
		require.ErrorIs(t, err, coterie.ErrClosed)
		w.each = func() { t.Error("no write after the end of the backup") }
		_, err = n.Backup(t.Context(), w)
		require.ErrorIs(t, err, coterie.ErrClosed)
		c.Stop(0)
	})
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// smallBackup returns a backup that is small enough for tests with each of its bytes.
func smallBackup(t testing.TB) []byte {
	t.Helper()
	n := open(t)
	put(t, n, "k", "old", coterie.WithLease(grant(t, n, time.Hour)))
	put(t, n, "k", "v")
	_, b := backup(t, n)
	return b
}

func TestRestoreOfDamagedBackupWritesNothing(t *testing.T) {
	b := smallBackup(t)
	refused := func(b []byte, what string, at int) {
		t.Helper()
		s := sites(1)[0]
		err := s.restore(t, b)
		if !errors.Is(err, coterie.ErrFormat) { // the byte is the version, which has no checksum
			require.ErrorIs(t, err, coterie.ErrCorrupt, "%s at %d", what, at)
		}
		require.Zero(t, s.disk.Changes(), "%s at %d", what, at)
	}
	for i := range b {
		refused(b[:i], "cut", i)
		damaged := bytes.Clone(b)
		damaged[i] ^= 1 << (i % 8)
		refused(damaged, "flipped", i)
	}
	refused(append(bytes.Clone(b), 0), "more", len(b))
	dir := filepath.Join(t.TempDir(), "data")
	err := coterie.RestoreBackup(t.Context(), bytes.NewReader(b[:len(b)-1]), coterie.Config{Dir: dir})
	require.ErrorIs(t, err, coterie.ErrCorrupt)
	require.NoDirExists(t, dir)
}

func TestUnreadableBackupIsNotDamaged(t *testing.T) {
	b := smallBackup(t)
	s := sites(1)[0]
	broken := errors.New("broken")
	for _, n := range []int{0, 10, len(b) - 1} {
		r := io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken))
		err := coterie.RestoreBackup(on(t, s.disk), r, s.Config)
		require.ErrorIs(t, err, broken)
		require.NotErrorIs(t, err, coterie.ErrCorrupt)
	}
	ctx, cancel := context.WithCancelCause(on(t, s.disk))
	cancel(broken)
	require.ErrorIs(t, coterie.RestoreBackup(ctx, bytes.NewReader(b), s.Config), broken)
	require.Zero(t, s.disk.Changes())
}

// whole checks that a founder has the whole content of smallBackup.
func whole(t *testing.T, s *site) {
	t.Helper()
	n, err := coterie.Open(on(t, s.disk), s.Config)
	require.NoError(t, err)
	require.NoError(t, n.Ready(t.Context()))
	require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
	require.EqualValues(t, 4, put(t, n, "k", "w").Revision)
	require.NoError(t, n.Close())
}

func TestCrashedRestoreIsRepeated(t *testing.T) {
	b := smallBackup(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, end := range []func(*vfs.Memory){
		(*vfs.Memory).Kill,
		func(d *vfs.Memory) { d.Crash(nil) },
		func(d *vfs.Memory) { d.Crash(random) },
	} {
		synctest.Test(t, func(t *testing.T) {
			steps, unfinished := 0, 0
			for done := false; !done; steps++ {
				require.Less(t, steps, 100)
				s := sites(1)[0]
				s.disk.FreezeAfter(steps)
				done = s.restore(t, b) == nil
				end(s.disk)
				_, settled := s.disk.Mount().Open("/data/identity")
				_, begun := s.disk.Mount().Open("/data/identity.founding")
				if settled != nil && begun == nil {
					_, err := coterie.Open(on(t, s.disk), s.Config)
					require.ErrorIs(t, err, coterie.ErrRestoreUnfinished)
					unfinished++
				}
				if err := s.restore(t, b); err != nil {
					require.ErrorIs(t, err, coterie.ErrDirNotEmpty)
					require.NoError(t, settled)
				} else {
					require.False(t, done)
				}
				whole(t, s)
			}
			require.Greater(t, steps, 10)
			require.Greater(t, unfinished, 5)
		})
	}
}

func TestRestoreOverwritesNothing(t *testing.T) {
	b := smallBackup(t)
	synctest.Test(t, func(t *testing.T) {
		s := sites(1)[0]
		n, err := coterie.Open(on(t, s.disk), s.Config)
		require.NoError(t, err)
		put(t, n, "own", "v")
		require.ErrorIs(t, coterie.RestoreBackup(vfs.With(t.Context(), s.disk.Mount()), bytes.NewReader(b), s.Config), coterie.ErrDirInUse)
		require.NoError(t, n.Close())
		require.ErrorIs(t, s.restore(t, b), coterie.ErrDirNotEmpty)
		n, err = coterie.Open(on(t, s.disk), s.Config)
		require.NoError(t, err)
		require.NoError(t, n.Ready(t.Context()))
		require.Equal(t, "v", get(t, n, "own").KVs[0].Value)
		require.Empty(t, get(t, n, "k").KVs)
		require.NoError(t, n.Close())

		again := sites(1)[0]
		require.NoError(t, again.restore(t, b))
		require.ErrorIs(t, again.restore(t, b), coterie.ErrDirNotEmpty)
		whole(t, again)
	})
}

func TestRestoredFoundersRefuseOthers(t *testing.T) {
	b := smallBackup(t)
	synctest.Test(t, func(t *testing.T) {
		all := sites(3)
		require.NoError(t, all[0].restore(t, b))
		require.NoError(t, all[1].restore(t, b))
		n := all[0].open(t)
		all[1].open(t)
		stranger, err := coterie.Open(on(t, all[2].disk), all[2].Config) // the backup was not restored there
		require.NoError(t, err)
		require.ErrorIs(t, notReady(t, stranger, time.Minute), coterie.ErrClusterMismatch)
		require.ErrorIs(t, notReady(t, n, time.Minute), coterie.ErrClusterMismatch)
		require.Empty(t, get(t, stranger, "k", coterie.WithSerializable()).KVs)
		require.NoError(t, stranger.Close())
		all[2].disk = vfs.NewForgetful()
		require.NoError(t, all[2].restore(t, b))
		ready(t, all[2].open(t))
		ready(t, n)
	})
}

// The ID of a restored cluster follows from the backup, the name of the cluster, and the founders.
func TestRestoredClusterHasItsOwnID(t *testing.T) {
	b, other := smallBackup(t), smallBackup(t)
	synctest.Test(t, func(t *testing.T) {
		seen := map[coterie.ClusterID]string{}
		restore := func(what string, b []byte, s *site) {
			require.NoError(t, s.restore(t, b))
			n := s.open(t)
			require.Empty(t, seen[n.Status().ClusterID], what)
			seen[n.Status().ClusterID] = what
		}
		restore("first", b, sites(1)[0])
		restore("another backup", other, sites(1)[0])
		restore("other founders", b, sites(2)[0])
		named := sites(1)[0]
		named.Cluster = "other"
		restore("another name", b, named)
		fresh := sites(1)[0].open(t)
		require.Empty(t, seen[fresh.Status().ClusterID])
	})
}

func TestRestoreBackupReportsAllFaults(t *testing.T) {
	b := smallBackup(t)
	founders := []coterie.Founder{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1"}}
	for name, c := range map[string]struct {
		cfg  coterie.Config
		text string
	}{
		"in memory":      {coterie.Config{InMemory: true}, "Config.InMemory"},
		"no directory":   {coterie.Config{}, "Config.Dir"},
		"no address":     {coterie.Config{Dir: "/data", Name: "a", Addr: "host:0"}, "Config.Advertise"},
		"no name":        {coterie.Config{Dir: "/data", Addr: "a:1", Founders: founders}, "Config.Name"},
		"another's name": {coterie.Config{Dir: "/data", Addr: "a:1", Name: "c", Founders: founders}, "not among Founders"},
		"two faults":     {coterie.Config{Dir: "/data", Addr: "a:1", ElectionTimeout: 1}, "Config.ElectionTimeout"},
	} {
		disk := vfs.NewForgetful()
		err := coterie.RestoreBackup(on(t, disk), bytes.NewReader(b), c.cfg)
		require.ErrorIs(t, err, coterie.ErrInvalidOption, name)
		require.ErrorContains(t, err, c.text, name)
		require.Zero(t, disk.Changes(), name)
	}
}

func TestRestoreToRealDirectory(t *testing.T) {
	b := smallBackup(t)
	cfg := coterie.Config{Dir: filepath.Join(t.TempDir(), "a", "b")}
	require.NoError(t, coterie.RestoreBackup(t.Context(), bytes.NewReader(b), cfg))
	require.ErrorIs(t, coterie.RestoreBackup(t.Context(), bytes.NewReader(b), cfg), coterie.ErrDirNotEmpty)
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	defer n.Close()
	require.NoError(t, n.Ready(t.Context()))
	require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
}
