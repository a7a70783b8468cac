// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/state"
)

// A tap is a node's network. It counts the node's writes, and can break all of the node's connections, which lose the
// messages in transit.
type tap struct {
	coterie.Network
	writes *atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
}

func (n *tap) Listen(addr string) (net.Listener, error) {
	l, err := n.Network.Listen(addr)
	return tappedListener{l, n}, err
}

func (n *tap) Dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := n.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return n.keep(conn), nil
}

func (n *tap) keep(conn net.Conn) net.Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, conn)
	return tappedConn{conn, n}
}

func (n *tap) breakAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, conn := range n.conns {
		conn.Close() // some are closed already
	}
	n.conns = nil
}

type tappedListener struct {
	net.Listener
	tap *tap
}

func (l tappedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.tap.keep(conn), nil
}

type tappedConn struct {
	net.Conn
	tap *tap
}

func (c tappedConn) Write(b []byte) (int, error) {
	c.tap.writes.Add(1)
	return c.Conn.Write(b)
}

// A messages records the log lines of nodes.
type messages struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (m *messages) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text.Write(b)
}

func (m *messages) has(text string) bool { return m.count(text) > 0 }

func (m *messages) count(text string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Count(m.text.String(), text)
}

// warnings returns the lines at the level Warn.
func (m *messages) warnings() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []string
	for line := range strings.Lines(m.text.String()) {
		if strings.Contains(line, "level=WARN") {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

func (m *messages) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(m, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// snapshotInstalled is raft's log line after a follower has installed a snapshot from its leader.
const snapshotInstalled = "Installed remote snapshot"

// A node that hears no leader asks whether it could win before it raises its term. Otherwise its return would depose a
// leader that all other nodes hear.
func TestReturningFollowerDeposesNoLeader(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, away := c.Leader(), c.Follower()
		put(t, leader, "k", "before")
		term := leader.Status().Term
		for _, behind := range []bool{false, true} {
			c.Pause(c.Index(away))
			if behind {
				put(t, leader, "k", "meanwhile")
			}
			time.Sleep(time.Minute)
			require.NotEqual(t, coterie.RoleLeader, away.Status().Role)
			require.Zero(t, away.Status().Leader)
			require.Equal(t, term, away.Status().Term, "no number of pre-votes raises the term")
			c.Resume(c.Index(away))
			time.Sleep(10 * time.Second)
			require.Same(t, leader, c.Leader())
			for _, n := range c.Nodes() {
				require.Equal(t, term, n.Status().Term)
				require.Equal(t, leader.ID(), n.Status().Leader)
			}
			require.Equal(t, behind, get(t, away, "k").KVs[0].Value == "meanwhile")
		}
		sameState(t, c)
	})
}

// On every node, concurrent reads share one question to the leader and its majority.
func TestConcurrentReadsShareOneRound(t *testing.T) {
	const readers = 1000
	var writes atomic.Int64
	counted := coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Network = &tap{Network: cfg.Network, writes: &writes} })
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		for name, n := range map[string]*coterie.Node{"leader": c.Leader(), "follower": c.Follower()} {
			get(t, n, "k") // opens the connections
			synctest.Wait()
			before := writes.Load()
			for range 10 {
				get(t, n, "k")
			}
			synctest.Wait()
			alone := writes.Load() - before
			require.GreaterOrEqual(t, alone, int64(10*2), "each of the reads in turn asks a majority")

			before = writes.Load()
			var wg sync.WaitGroup
			for range readers {
				wg.Go(func() {
					if r, err := n.Get(t.Context(), "k"); err != nil || r.KVs[0].Value != "v" {
						t.Errorf("%v %v", r, err)
					}
				})
			}
			wg.Wait()
			synctest.Wait()
			together := writes.Load() - before
			t.Logf("%s: %d messages for 10 reads in turn, %d for %d at once", name, alone, together, readers)
			require.Less(t, together, int64(readers/2), name)
		}
	}, counted)
}

// A displacement is a cluster in which a node can be displaced from the table of proposers.
type displacement struct {
	t                *testing.T
	c                *coterietest.Cluster
	network          *memnet.Network
	leader, n, third *coterie.Node
	breakAll         func()           // breaks n's connections
	attempts         map[string]error // writes of n by their keys
}

// displaceable runs a test with a node that can be displaced by as many newcomers as the state machine keeps proposers.
// In the end it checks the node's writes: each was applied once or, if its outcome is unknown, at most once.
func displaceable(t *testing.T, fn func(t *testing.T, d *displacement)) {
	network := memnet.New()
	var writes atomic.Int64
	var taps [3]*tap
	onNetwork := coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		taps[i] = &tap{Network: network.Host(cfg.Name), writes: &writes}
		cfg.Network, cfg.SnapshotEntries = taps[i], 5
	})
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		third := c.Node(3 - c.Index(leader) - c.Index(n))
		d := &displacement{t, c, network, leader, n, third, taps[c.Index(n)].breakAll, map[string]error{}}
		fn(t, d)
		time.Sleep(10 * time.Second) // until repeated messages have arrived
		require.Empty(t, get(t, n, "twice-", coterie.WithPrefix()).KVs)
		there := keys(get(t, n, "w-", coterie.WithPrefix()).KVs)
		for key, err := range d.attempts {
			if err == nil {
				require.Contains(t, there, key)
			}
		}
		sameState(t, c)
	}, onNetwork)
}

// displace registers newcomers of another node, which take the places of n and of all other proposers.
func (d *displacement) displace() {
	d.t.Helper()
	before := d.leader.Status()
	client := rpc.NewClient(d.network.Host(d.third.Status().Name), posing(d.third.ID(), d.leader))
	defer client.Close()
	registrations := command.NewEntry()
	for i := range uint64(state.MaxProposers) {
		registration := command.Command{Register: true, Applied: before.Applied}
		registrations.Add(&command.Proposal{Proposer: i + 1, Command: registration})
	}
	_, err := client.Call(d.t.Context(), rpc.Peer{ID: uint64(d.leader.ID()), Addr: before.Addr}, propose, registrations.Bytes())
	require.NoError(d.t, err)
	for d.leader.Status().Applied == before.Applied {
		time.Sleep(time.Millisecond)
	}
}

// write puts key, or another key if key exists, because the write was then applied twice.
func (d *displacement) write(key string) error {
	_, err := d.n.Txn(d.t.Context()).If(coterie.Compare(coterie.Version(key), "=", 0)).
		Then(coterie.OpPut(key, "")).Else(coterie.OpPut("twice-"+key, "")).Commit()
	if err != nil && !errors.Is(err, coterie.ErrMaybeApplied) {
		d.t.Errorf("%s: %v", key, err)
	}
	d.attempts[key] = err
	return err
}

// writeUnanswered starts a write, and returns when the leader has applied it. The network then loses all messages from
// the leader to n, so the write's result comes only after the network is healed.
func (d *displacement) writeUnanswered(key string) <-chan error {
	d.t.Helper()
	rev := get(d.t, d.leader, "any").Revision
	synctest.Wait() // n's earlier calls have their answers, so their connection is free: none is made while the path is blocked
	d.network.Block(d.leader.Status().Name, d.n.Status().Name)
	wrote := make(chan error, 1)
	go func() { wrote <- d.write(key) }()
	for d.leader.Status().Revision == rev {
		time.Sleep(time.Millisecond)
	}
	return wrote
}

// isolate blocks the network between n and both other nodes. Messages in transit to n are lost.
func (d *displacement) isolate() {
	n := d.n.Status().Name
	for _, other := range []*coterie.Node{d.leader, d.third} {
		d.network.Block(n, other.Status().Name)
		d.network.Block(other.Status().Name, n)
	}
	d.breakAll()
}

// outgrowLog writes 75 MiB to key, so that a snapshot is taken and the log before it is dropped. Then leadership passes
// from leader to heir. A leader repeats a request to an absent follower for as long as it leads, with the entries that
// it read from its log before. heir has no such request, and the minute ends the last attempt of leader.
func outgrowLog(t *testing.T, leader, heir *coterie.Node, key string) {
	t.Helper()
	big := strings.Repeat("x", 1<<20)
	for i := range 75 {
		put(t, leader, key, big+strconv.Itoa(i))
	}
	require.NoError(t, leader.TransferLeadership(t.Context(), heir.ID()))
	time.Sleep(time.Minute)
}

// The state machine keeps 10,000 proposers, one for each run of a node. A displaced proposer learns that from its next
// write, and sends this write again under a new ID.
func TestEvictedProposerStartsOver(t *testing.T) {
	displaceable(t, func(t *testing.T, d *displacement) {
		require.NoError(t, d.write("w-before"))
		d.displace()
		for i := range 10 {
			require.NoError(t, d.write(fmt.Sprint("w-after-", i)))
		}
	})
}

// A write was applied before its node was displaced, and the node gets a snapshot that does not remember the write. The
// outcome of the write is unknown to the node, which does not send it again.
func TestEvictedProposerGetsSnapshot(t *testing.T) {
	displaceable(t, func(t *testing.T, d *displacement) {
		require.NoError(t, d.write("w-before"))
		rev := get(t, d.leader, "any").Revision
		wrote := d.writeUnanswered("w-under-way")
		d.isolate()
		time.Sleep(15 * time.Second) // until the leader has a request with the write that it repeats
		d.displace()
		outgrowLog(t, d.leader, d.third, "big")
		require.Equal(t, rev, d.n.Status().Revision)
		d.network.Heal()
		require.ErrorIs(t, <-wrote, coterie.ErrMaybeApplied)
		require.NoError(t, d.write("w-after"))
		require.Equal(t, []string{"w-after", "w-before", "w-under-way"}, keys(get(t, d.n, "w-", coterie.WithPrefix()).KVs))
	})
}

// A write that was applied before its node was displaced has its result, although the node learns of both at once and
// has sent the write again.
func TestEvictedProposerLearnsEarlierResults(t *testing.T) {
	displaceable(t, func(t *testing.T, d *displacement) {
		require.NoError(t, d.write("w-before"))
		wrote := d.writeUnanswered("w-under-way")
		d.displace()
		time.Sleep(5 * time.Second)
		d.network.Heal()
		require.NoError(t, <-wrote)
		require.NoError(t, d.n.Ready(t.Context()))
		require.NoError(t, d.write("w-after"))
	})
}

// A follower proposes a write, and before it learns the outcome, the leader's log no longer has the entry. The result is
// in the snapshot.
func TestAnswerInsideSnapshot(t *testing.T) {
	var log messages
	var writes atomic.Int64
	var taps [3]*tap
	few := coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		taps[i] = &tap{Network: cfg.Network, writes: &writes}
		cfg.Network, cfg.SnapshotEntries, cfg.Logger = taps[i], 5, log.logger()
	})
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n, leader := c.Follower(), c.Leader()
		behind := c.Index(n)
		heir := c.Node(3 - behind - c.Index(leader))
		require.EqualValues(t, 2, put(t, n, "k", "first").Revision)
		synctest.Wait() // the connection of the first call is free: none is made while the path is blocked
		c.Block(c.Index(leader), behind)
		type outcome struct {
			r   *coterie.PutResponse
			err error
		}
		waiting := make(chan outcome, 1)
		go func() {
			r, err := n.Put(t.Context(), "k", "second", coterie.WithPrevKV())
			waiting <- outcome{r, err}
		}()
		for leader.Status().Revision < 3 {
			time.Sleep(time.Millisecond)
		}
		c.Pause(behind)
		taps[behind].breakAll() // no entry of the log arrives later
		outgrowLog(t, leader, heir, "k")
		require.Empty(t, waiting)
		require.False(t, log.has(snapshotInstalled))
		require.EqualValues(t, 2, n.Status().Revision)
		c.Resume(behind)
		o := <-waiting
		require.NoError(t, o.err)
		require.EqualValues(t, 3, o.r.Revision, "the revision of the write itself, not the newest one")
		require.Equal(t, "first", o.r.PrevKV.Value)
		for !log.has(snapshotInstalled) { // the test times out if the line does not come
			time.Sleep(time.Millisecond)
		}
		kv := get(t, n, "k").KVs[0]
		require.EqualValues(t, 77, kv.Version, "applied once")
		require.Same(t, heir, c.Leader())
		require.EqualValues(t, 79, put(t, n, "k", "third").Revision)
		sameState(t, c)
	}, few)
}

// Under load, a snapshot brings a follower the keys, leases and locks of the other nodes. The follower's watches see
// every change once.
func TestSnapshotUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("writes gigabytes of snapshots into memory")
	}
	var log messages
	few := coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.SnapshotEntries, cfg.Logger = 20, log.logger() })
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		behind := c.Index(n)
		other := c.Node(3 - behind - c.Index(leader))
		watch := n.WatchChan(t.Context(), "", coterie.WithPrefix())
		kept, revoked := grant(t, leader, time.Hour), grant(t, leader, time.Hour)
		put(t, leader, "kept", "v", coterie.WithLease(kept))
		put(t, leader, "revoked", "v", coterie.WithLease(revoked))
		m := coterie.NewMutex(session(t, n, coterie.WithTTL(time.Hour)), "lock")
		require.NoError(t, m.Lock(t.Context()))
		// The watch has seen all changes so far. The snapshot's changes must wake it.
		mirror := map[string]coterie.KeyValue{}
		seen := int64(1)
		see := func(upTo int64) {
			for ; seen < upTo; seen++ {
				r := next(t, watch)
				require.Equal(t, seen+1, r.Revision, "no event is lost or repeated")
				for _, e := range r.Events {
					if e.Type == coterie.EventDelete {
						delete(mirror, e.KV.Key)
					} else {
						mirror[e.KV.Key] = e.KV
					}
				}
			}
		}
		see(leader.Status().Revision)
		silent(t, watch)

		c.Pause(behind)
		var load sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		for writer, on := range []*coterie.Node{leader, leader, other, other} {
			load.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					if _, err := on.Put(t.Context(), fmt.Sprintf("load%d-%d", writer, i%10), strconv.Itoa(i)); err != nil {
						t.Error(err)
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
		big := strings.Repeat("x", 1<<20)
		for i := range 80 { // more than a snapshot leaves of the log
			put(t, other, "big", big+strconv.Itoa(i))
		}
		put(t, other, "moved", "v", coterie.WithLease(kept))
		require.NoError(t, errOf(other.Revoke(t.Context(), revoked)))
		late := grant(t, other, time.Hour)
		put(t, other, "late", "v", coterie.WithLease(late))
		// Snapshots take no virtual time. So by then, a snapshot was taken after all of these writes, and the log that
		// it has left is shorter than the part that n lacks.
		time.Sleep(time.Second)
		require.False(t, log.has(snapshotInstalled))
		c.Resume(behind)
		for begin := time.Now(); !log.has(snapshotInstalled); time.Sleep(time.Millisecond) {
			if time.Since(begin) > 20*time.Second {
				stop()
				for _, n := range c.Nodes() {
					t.Logf("%+v", n.Status())
				}
				t.Fatal("no snapshot has come")
			}
		}
		time.Sleep(time.Second)
		stop()
		load.Wait()

		require.NoError(t, n.Check(t.Context()))
		sameState(t, c)
		for _, n := range c.Nodes() {
			all, err := n.Leases(t.Context())
			require.NoError(t, err)
			require.Len(t, all.Leases, 3, "including the session's lease")
			for id, keys := range map[coterie.LeaseID][]string{kept: {"kept", "moved"}, late: {"late"}} {
				l, err := n.TimeToLive(t.Context(), id)
				require.NoError(t, err)
				require.Equal(t, keys, l.Keys)
			}
			_, err = n.TimeToLive(t.Context(), revoked)
			require.ErrorIs(t, err, coterie.ErrLeaseNotFound)
		}
		require.ErrorIs(t, coterie.NewMutex(session(t, other), "lock").TryLock(t.Context()), coterie.ErrLocked)
		require.True(t, commit(t, n.Txn(t.Context()).If(m.Guard()).Then(coterie.OpPut("guarded", "v"))).Succeeded)
		require.NoError(t, m.Unlock(t.Context()))

		// The events of the watch add up to the present state.
		see(get(t, n, "any").Revision)
		silent(t, watch)
		kvs := get(t, leader, "", coterie.WithPrefix()).KVs
		require.Len(t, mirror, len(kvs))
		for _, kv := range kvs {
			require.Equal(t, kv, mirror[kv.Key])
		}
		require.False(t, slices.ContainsFunc(kvs, func(kv coterie.KeyValue) bool { return kv.Key == "revoked" }))
	}, few)
}
