// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

func TestConfigReportsEveryMistake(t *testing.T) {
	_, err := coterie.Open(t.Context(), coterie.Config{
		Addr: "nowhere", Advertise: "0.0.0.0:1", ElectionTimeout: time.Millisecond, MaxRequestBytes: -1, MaxTxnOps: -1,
		Founders: []coterie.Founder{{"a", "h:1"}, {"a", "h:1"}, {"", "h:x"}},
	})
	require.ErrorIs(t, err, coterie.ErrInvalidOption)
	for _, field := range []string{"Dir", "Addr", "Advertise", "ElectionTimeout", "MaxRequestBytes", "MaxTxnOps", "Founders"} {
		require.ErrorContains(t, err, "Config."+field)
	}
	for name, cfg := range map[string]coterie.Config{
		"both":                 {Dir: "d", InMemory: true},
		"founders, no address": {InMemory: true, Name: "a", Founders: []coterie.Founder{{"a", "h:1"}, {"b", "h:2"}}},
		"not a founder": {
			InMemory: true, Name: "c", Addr: "h:1", Network: coterie.NewMemoryNetwork(), Founders: []coterie.Founder{{"a", "h:1"}, {"b", "h:2"}},
		},
		"cannot be dialled":      {InMemory: true, Addr: "0.0.0.0:0"},
		"Advertise of port 0":    {InMemory: true, Addr: "127.0.0.1:0", Advertise: "h:0"},
		"Founders of port 0":     {InMemory: true, Name: "a", Addr: "127.0.0.1:0", Founders: []coterie.Founder{{Name: "a", Addr: "h:1"}, {Name: "b", Addr: "h:0"}}},
		"Metadata without a key": {InMemory: true, Metadata: map[string]string{"": "v"}},
		"Metadata, too large":    {InMemory: true, Metadata: map[string]string{"k": strings.Repeat("v", coterie.MaxMetadataBytes)}},
		"Founders of port 00":    {InMemory: true, Name: "a", Addr: "127.0.0.1:0", Founders: []coterie.Founder{{Name: "a", Addr: "h:00"}}},
	} {
		_, err := coterie.Open(t.Context(), cfg)
		require.ErrorIs(t, err, coterie.ErrInvalidOption, name)
	}
	_, err = coterie.Open(t.Context(), coterie.Config{InMemory: true, Addr: "256.0.0.1:0"})
	require.Error(t, err)
}

func TestDirectoryHasOneNode(t *testing.T) {
	dir := t.TempDir()
	n, err := coterie.Open(t.Context(), coterie.Config{Dir: dir})
	require.NoError(t, err)
	_, err = coterie.Open(t.Context(), coterie.Config{Dir: dir})
	require.ErrorIs(t, err, coterie.ErrDirInUse)
	put(t, n, "k", "v")
	require.NoError(t, n.Close())

	_, err = coterie.Open(t.Context(), coterie.Config{Dir: dir, Name: "another"})
	require.ErrorIs(t, err, coterie.ErrClusterMismatch)
	_, err = coterie.Open(t.Context(), coterie.Config{Dir: dir, Cluster: "another"})
	require.ErrorIs(t, err, coterie.ErrClusterMismatch)

	n, err = coterie.Open(t.Context(), coterie.Config{Dir: dir})
	require.NoError(t, err)
	require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
	require.NoError(t, n.Close())
}

func TestBadDirectories(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := coterie.Open(t.Context(), coterie.Config{Dir: filepath.Join(file, "below")})
	require.Error(t, err)

	// A directory that cannot be written is rejected. Not even root can write to /proc.
	_, err = coterie.Open(t.Context(), coterie.Config{Dir: "/proc/coterie"})
	require.Error(t, err)

	// A directory in the previous format is rejected.
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "raft.db"), []byte("x"), 0o600))
	_, err = coterie.Open(t.Context(), coterie.Config{Dir: dir})
	require.ErrorContains(t, err, "raft.db")

	dir = t.TempDir()
	n, err := coterie.Open(t.Context(), coterie.Config{Dir: dir})
	require.NoError(t, err)
	put(t, n, "k", "v")
	require.NoError(t, n.Close())
	for _, name := range []string{"identity", "vote", "log/0000000000000001.log"} {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("x"), len(whole)), 0o600))
		_, err = coterie.Open(t.Context(), coterie.Config{Dir: dir})
		require.ErrorIs(t, err, coterie.ErrCorrupt, name)
		require.ErrorContains(t, err, path)
		require.NoError(t, os.WriteFile(path, whole, 0o600))
	}
	n, err = coterie.Open(t.Context(), coterie.Config{Dir: dir})
	require.NoError(t, err)
	require.Equal(t, "v", get(t, n, "k").KVs[0].Value)
	require.NoError(t, n.Close())
}

func TestDamagedSnapshotIsRejected(t *testing.T) {
	dir := t.TempDir()
	cfg := coterie.Config{Dir: dir, SnapshotEntries: 10}
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	var snapshots []string
	for len(snapshots) == 0 {
		put(t, n, "k", "v")
		snapshots, err = filepath.Glob(filepath.Join(dir, "snapshots", "*.snap"))
		require.NoError(t, err)
	}
	require.NoError(t, n.Close())
	snapshots, _ = filepath.Glob(filepath.Join(dir, "snapshots", "*.snap"))
	for _, path := range snapshots {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		b[len(b)/2] ^= 1
		require.NoError(t, os.WriteFile(path, b, 0o600))
	}
	_, err = coterie.Open(t.Context(), cfg)
	require.ErrorIs(t, err, coterie.ErrCorrupt)
}

func TestCloseTwice(t *testing.T) {
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true})
	require.NoError(t, err)
	require.NoError(t, n.Err())
	select {
	case <-n.Done():
		t.Fatal("done")
	default:
	}
	go n.Close()
	require.NoError(t, n.Close())
	require.NoError(t, n.Close())
	<-n.Done()
	require.ErrorIs(t, n.Err(), coterie.ErrClosed)
	require.EqualError(t, n.Err(), "coterie: closed: the node is closed")
	ctx := t.Context()
	for name, err := range map[string]error{
		"put": errOf(n.Put(ctx, "k", "v")), "get": errOf(n.Get(ctx, "k")),
		"serializable": errOf(n.Get(ctx, "k", coterie.WithSerializable())),
		"delete":       errOf(n.Delete(ctx, "k")), "txn": errOf(n.Txn(ctx).Commit()), "compact": errOf(n.Compact(ctx, 1)),
		"grant": errOf(n.Grant(ctx, time.Minute)), "revoke": errOf(n.Revoke(ctx, 1)), "keep alive": n.KeepAlive(ctx, 1),
		"leases": errOf(n.Leases(ctx)), "ready": n.Ready(ctx), "check": n.Check(ctx), "hash": errOf(n.Hash(ctx, 0)),
	} {
		require.ErrorIs(t, err, coterie.ErrClosed, name)
		require.NotErrorIs(t, err, coterie.ErrMaybeApplied, name)
	}
	require.Equal(t, coterie.RoleClosed, n.Status().Role)
	for range n.ClusterLeaders(ctx) {
		break
	}
}

func TestCloseFromAnyState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := coterie.NewMemoryNetwork()
		founders := []coterie.Founder{{"a", "a:1"}, {"b", "b:1"}, {"c", "c:1"}}
		for _, wait := range []time.Duration{0, time.Second, 1500 * time.Millisecond, time.Minute} {
			n, err := coterie.Open(t.Context(), coterie.Config{
				InMemory: true, Name: "a", Addr: "a:1", Network: network, Founders: founders,
			})
			require.NoError(t, err)
			waiting := make(chan error)
			go func() { _, err := n.Put(t.Context(), "k", "v"); waiting <- err }()
			time.Sleep(wait) // alone, the node starts elections that it cannot win
			begin := time.Now()
			require.NoError(t, n.Close())
			require.Less(t, time.Since(begin), 5*time.Second)
			require.ErrorIs(t, <-waiting, coterie.ErrClosed)
		}
	})
}

func TestCloseWhileASnapshotIsTaken(t *testing.T) {
	cfg := coterie.Config{Dir: t.TempDir(), SnapshotEntries: 2}
	value := strings.Repeat("x", 100_000)
	for i := range 20 {
		n, err := coterie.Open(t.Context(), cfg)
		require.NoError(t, err)
		for j := range i % 5 {
			put(t, n, fmt.Sprint(i, " ", j), value)
		}
		require.NoError(t, n.Close())
	}
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	require.EqualValues(t, 40, get(t, n, "", coterie.WithPrefix(), coterie.WithCountOnly()).Count)
	require.NoError(t, n.Check(t.Context()))
	require.NoError(t, n.Close())
}

func TestCloseIsBoundedForAnyElectionTimeout(t *testing.T) {
	slow := coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.ElectionTimeout = 10 * time.Second })
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader := c.Index(c.Leader())
		c.Pause(leader)
		begin := time.Now()
		c.Stop(leader)
		require.Less(t, time.Since(begin), 5*time.Second)
	}, slow)
}

func TestCloseCutsASnapshotShort(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 300 MB")
	}
	cfg := coterie.Config{Dir: t.TempDir(), SnapshotEntries: 300}
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	value := strings.Repeat("x", 1<<20)
	for i := range 300 { // the last one triggers a snapshot
		put(t, n, fmt.Sprint(i), value)
	}
	require.NoError(t, n.Close())
	n, err = coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	require.EqualValues(t, 300, get(t, n, "", coterie.WithPrefix(), coterie.WithCountOnly()).Count)
	require.NoError(t, n.Close())
}

// The members are those in the log, no matter what Config.Founders says at a later start.
func TestRestartedFounderNeedsNoFounders(t *testing.T) {
	var cfgs [3]coterie.Config
	onDisk := coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		cfg.Dir = t.TempDir()
		cfgs[i] = *cfg
	})
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		i := c.Index(c.Follower())
		c.Stop(i)
		cfg := cfgs[i]
		cfg.Founders = nil
		n, err := coterie.Open(t.Context(), cfg)
		require.NoError(t, err)
		require.NoError(t, n.Ready(t.Context()))
		require.Equal(t, 3, n.Status().Voters)
		put(t, n, "k", "v")
		require.NoError(t, n.Close())
	}, onDisk)
}

func TestReadsOfManyKeysEndWithTheirContext(t *testing.T) {
	n := open(t, func(c *coterie.Config) { c.MaxTxnOps, c.MaxRequestBytes = 100_000, 64<<20 })
	var ops []coterie.Op
	for i := range 100_000 {
		ops = append(ops, coterie.OpPut(fmt.Sprintf("k%06d", i), ""))
	}
	commit(t, n.Txn(t.Context()).Then(ops...))
	nothing := coterie.WithMinModRevision(1 << 40)
	for name, read := range map[string]func(ctx context.Context) error{
		"get": func(ctx context.Context) error {
			_, err := n.Get(ctx, "", coterie.WithPrefix(), coterie.WithSerializable())
			return err
		},
		"txn": func(ctx context.Context) error {
			_, err := n.Txn(ctx).Then(coterie.OpGet("", coterie.WithPrefix(), nothing, coterie.WithSerializable())).Commit()
			return err
		},
		"range": func(ctx context.Context) error {
			for _, err := range n.Range(ctx, "", coterie.WithPrefix(), nothing, coterie.WithSerializable()) {
				return err
			}
			return nil
		},
	} {
		ctx := &endsAfter{Context: t.Context(), looks: 3, done: make(chan struct{})}
		require.ErrorIs(t, read(ctx), context.Canceled, name)
	}
}

// endsAfter is a context that ends after a number of calls of its methods.
type endsAfter struct {
	context.Context
	mu    sync.Mutex
	looks int
	done  chan struct{}
}

func (c *endsAfter) Done() <-chan struct{} { return c.done }

func (c *endsAfter) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.looks--; c.looks == 0 {
		close(c.done)
	}
	if c.looks <= 0 {
		return context.Canceled
	}
	return nil
}

func TestOpenEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := vfs.With(t.Context(), vfs.NewMemory().Mount())
		n, err := coterie.Open(ctx, coterie.Config{Dir: "d"})
		require.NoError(t, err)
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		_, err = coterie.Open(short, coterie.Config{Dir: "d"}) // Open waits for the lock
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Second) // Open has given up
		require.NoError(t, n.Close())
	})
}

func TestMisuseDoesNotPanic(t *testing.T) {
	require.Equal(t, "Role(9)", coterie.Role(9).String())
	_, err := (&coterie.Txn{}).Commit()
	require.ErrorIs(t, err, coterie.ErrInvalidOption)
	require.EqualValues(t, "PUT", coterie.EventType(0).String())
}

func TestHundredNodesInOneProcess(t *testing.T) {
	before := runtime.NumGoroutine()
	var nodes []*coterie.Node
	for i := range 100 {
		n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true, Cluster: fmt.Sprint(i)})
		require.NoError(t, err)
		nodes = append(nodes, n)
	}
	for i, n := range nodes {
		put(t, n, "k", fmt.Sprint(i))
	}
	for i, n := range nodes {
		require.Equal(t, fmt.Sprint(i), get(t, n, "k").KVs[0].Value)
		require.NoError(t, n.Close())
	}
	for i := 0; runtime.NumGoroutine() > before+5; i++ {
		require.Less(t, i, 1_000_000, "goroutines are left")
		runtime.Gosched()
	}
}

func TestClustersDoNotMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := coterie.NewMemoryNetwork()
		open := func(cluster, name, addr string, founders ...coterie.Founder) *coterie.Node {
			n, err := coterie.Open(t.Context(), coterie.Config{
				InMemory: true, Cluster: cluster, Name: name, Addr: addr, Network: network, Founders: founders,
			})
			require.NoError(t, err)
			t.Cleanup(func() { n.Close() })
			return n
		}
		a := open("one", "a", "a:1", coterie.Founder{"a", "a:1"}, coterie.Founder{"b", "b:1"})
		b := open("two", "b", "b:1", coterie.Founder{"a", "a:1"}, coterie.Founder{"b", "b:1"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, n := range []*coterie.Node{a, b} {
			err := n.Ready(ctx)
			require.ErrorIs(t, err, coterie.ErrNoLeader)
			require.ErrorIs(t, err, coterie.ErrClusterMismatch, "the reason, on both sides")
		}
	})
}

func TestLeadershipIsTheLatestValue(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		seen := 0
		for lead := range n.ClusterLeaders(ctx) {
			if lead.Leader == 0 {
				continue
			}
			if seen++; seen == 1 {
				require.Equal(t, c.Leader().ID(), lead.Leader)
				require.False(t, lead.Self)
				c.Crash(c.Index(c.Leader()))
				time.Sleep(time.Minute) // a slow reader
				continue
			}
			require.Equal(t, c.Leader().ID(), lead.Leader)
			require.Equal(t, lead.Self, c.Leader() == n)
			break
		}
	})
}

func TestStatus(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		put(t, c.Leader(), "k", "w")
		c.WaitRevision(3)
		time.Sleep(time.Second)
		for _, n := range c.Nodes() {
			s := n.Status()
			require.Equal(t, n.ID(), s.ID)
			require.Equal(t, c.Leader().ID(), s.Leader)
			require.Equal(t, n == c.Leader(), s.Role == coterie.RoleLeader)
			require.EqualValues(t, 3, s.Revision)
			require.Equal(t, 3, s.Voters)
			require.Equal(t, 1, s.Keys)
			require.Positive(t, s.Bytes)
			require.GreaterOrEqual(t, s.Durable, s.Applied)
			if s.Role == coterie.RoleLeader {
				require.Equal(t, 3, s.VotersReachable)
				require.Zero(t, s.LastContact)
			} else {
				require.Less(t, s.LastContact, 200*time.Millisecond)
			}
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		for i := range 1000 {
			put(t, n, "k", fmt.Sprint(i))
		}
		synctest.Wait()
		require.Greater(t, n.Status().CompactRevision, int64(800), "by revisions")
		require.LessOrEqual(t, n.Status().CompactRevision, int64(920))
		time.Sleep(time.Hour)
		require.EqualValues(t, 1001, n.Status().CompactRevision, "by age")
	}, func(c *coterie.Config) { c.Retention.Revisions = 100 })
	bubble(t, func(t *testing.T, n *coterie.Node) {
		for i := range 1000 {
			put(t, n, fmt.Sprint(i%10), strings.Repeat("x", 1000))
		}
		synctest.Wait()
		require.Less(t, n.Status().Bytes, int64(70_000), "by bytes")
		require.Greater(t, n.Status().Bytes, int64(40_000))
	}, func(c *coterie.Config) { c.Retention.Bytes = 50_000 })
}

func TestHistoryOfLargeValuesIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 3 GiB through memory")
	}
	n := open(t)
	watch := n.WatchChan(t.Context(), "k")
	value := strings.Repeat("x", 1<<20)
	for range 3000 {
		_, err := n.Put(t.Context(), "k", value)
		require.NoError(t, err)
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("heap: %d MiB in use", m.HeapInuse>>20)
	require.Less(t, m.HeapInuse, uint64(600<<20))
	var err error
	for r := range watch {
		err = r.Err
	}
	var compacted *coterie.CompactedError
	require.ErrorAs(t, err, &compacted)
	require.Positive(t, compacted.Revision)
}

func TestLoggerGetsImportantEvents(t *testing.T) {
	var log bytes.Buffer
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	put(t, n, "k", "v")
	require.NoError(t, n.Close()) // which waits for the log
	require.Contains(t, log.String(), "node opened")
	require.NotContains(t, log.String(), "level=ERROR")
}
