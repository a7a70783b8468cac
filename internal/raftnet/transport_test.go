// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/rpc"
)

const electionTimeout = time.Second

// A machine is raft's state machine. It keeps every command.
type machine struct {
	mu      sync.Mutex
	entries []string
	index   uint64
	at      time.Time // of the last Apply
	applied func(index uint64)
	restore func()
}

func (m *machine) Apply(l *raft.Log) any {
	m.mu.Lock()
	m.entries, m.index, m.at = append(m.entries, string(l.Data)), l.Index, time.Now()
	m.mu.Unlock()
	m.applied(l.Index)
	return nil
}

func (m *machine) state() (entries []string, index uint64, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.entries...), m.index, m.at
}

func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	entries, index, _ := m.state()
	return image{strings.Join(entries, "\n"), index}, nil
}

func (m *machine) Restore(r io.ReadCloser) error {
	if m.restore != nil {
		m.restore()
	}
	b, err := io.ReadAll(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries, m.index = strings.Split(string(b[8:]), "\n"), binary.BigEndian.Uint64(b)
	return err
}

type image struct {
	text  string
	index uint64
}

func (i image) Persist(sink raft.SnapshotSink) error {
	io.Copy(sink, io.MultiReader(bytes.NewReader(binary.BigEndian.AppendUint64(nil, i.index)), strings.NewReader(i.text)))
	return sink.Close()
}
func (image) Release() {}

type node struct {
	*machine
	member    uint64
	id        raft.ServerID
	addr      string
	transport *Transport
	server    *rpc.Server
	client    *rpc.Client
	raft      *raft.Raft
	snapshots *raft.InmemSnapshotStore
}

func serverID(member uint64) raft.ServerID { return raft.ServerID(fmt.Sprintf("%016x", member)) }

type cluster struct {
	*testing.T
	nodes []*node
}

type setup struct {
	commitTimeout time.Duration
	trailing      uint64
	network       func(host string) rpc.Network
	addr          string // to listen on; default: port 1 of the host
}

func hosts(n *memnet.Network) func(string) rpc.Network {
	return func(host string) rpc.Network { return n.Host(host) }
}

func host(i int) string { return fmt.Sprintf("n%d", i) }

func start(t *testing.T, n int, s setup) *cluster {
	t.Helper()
	c := &cluster{T: t}
	var listeners []net.Listener
	var servers []raft.Server
	for i := range n {
		addr := s.addr
		if addr == "" {
			addr = host(i) + ":1"
		}
		l, err := s.network(host(i)).Listen(addr)
		require.NoError(t, err)
		listeners = append(listeners, l)
		servers = append(servers, raft.Server{ID: serverID(uint64(i + 1)), Address: raft.ServerAddress(l.Addr().String())})
	}
	for i, l := range listeners {
		c.nodes = append(c.nodes, c.start(uint64(i+1), l, servers, s))
	}
	return c
}

func (c *cluster) start(member uint64, l net.Listener, servers []raft.Server, s setup) *node {
	party := rpc.Always(rpc.Identity{Cluster: 1, Member: member})
	nd := &node{machine: &machine{}, member: member, id: serverID(member), addr: l.Addr().String()}
	var self atomic.Pointer[raft.Raft]
	nd.machine.applied = func(index uint64) {
		if r := self.Load(); r != nil && r.State() == raft.Leader {
			nd.transport.Committed(r.CurrentTerm(), index)
		}
	}
	nd.client = rpc.NewClient(s.network(host(int(member)-1)), party)
	nd.transport = New(Config{
		Self: nd.id, Addr: raft.ServerAddress(nd.addr), Client: nd.client, Timeout: electionTimeout,
		Applied: func() uint64 { _, index, _ := nd.state(); return index },
		Term:    func() uint64 { return self.Load().CurrentTerm() },
	})
	nd.server = rpc.Serve(l, rpc.ServerConfig{Party: party, Raft: nd.transport.Serve})
	cfg := raft.DefaultConfig()
	cfg.LocalID = nd.id
	cfg.Logger = hclog.NewNullLogger()
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = electionTimeout, electionTimeout, electionTimeout/2
	cfg.TrailingLogs = s.trailing
	if s.commitTimeout > 0 {
		cfg.CommitTimeout = s.commitTimeout
	}
	store := raft.NewInmemStore()
	nd.snapshots = raft.NewInmemSnapshotStore()
	require.NoError(c, raft.BootstrapCluster(cfg, store, store, nd.snapshots, nd.transport, raft.Configuration{Servers: servers}))
	r, err := raft.NewRaft(cfg, nd.machine, store, store, nd.snapshots, nd.transport)
	require.NoError(c, err)
	self.Store(r)
	nd.raft = r
	return nd
}

func (c *cluster) stop() {
	for _, nd := range c.nodes {
		require.NoError(c, nd.transport.Close())
		require.NoError(c, nd.raft.Shutdown().Error())
		require.NoError(c, nd.client.Close())
		require.NoError(c, nd.server.Close())
	}
}

// leader waits for a leader among the nodes.
func (c *cluster) leader(among ...*node) *node {
	if among == nil {
		among = c.nodes
	}
	for range 1000 {
		for _, nd := range among {
			if nd.raft.State() == raft.Leader {
				return nd
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	require.FailNow(c, "no leader")
	return nil
}

func (c *cluster) others(than *node) (others []*node) {
	for _, nd := range c.nodes {
		if nd != than {
			others = append(others, nd)
		}
	}
	return others
}

func (c *cluster) ids() (ids []raft.ServerID) {
	for _, nd := range c.nodes {
		ids = append(ids, nd.id)
	}
	return ids
}

func (nd *node) put(t require.TestingT, text string) uint64 {
	future := nd.raft.Apply([]byte(text), 10*time.Second)
	require.NoError(t, future.Error())
	return future.Index()
}

func (c *cluster) agree(index uint64) {
	want, _, _ := c.nodes[0].state()
	for _, nd := range c.nodes {
		got, applied, _ := nd.state()
		require.Equal(c, index, applied, "node %d", nd.member)
		require.Equal(c, want, got)
	}
}

func bubble(t *testing.T, s setup, f func(c *cluster, n *memnet.Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		s.network = hosts(n)
		c := start(t, 3, s)
		defer c.stop()
		f(c, n)
	})
}

func TestElectApplyPartitionHeal(t *testing.T) {
	bubble(t, setup{}, func(c *cluster, n *memnet.Network) {
		old := c.leader()
		old.put(c, "a")
		for _, nd := range c.others(old) {
			n.Block(host(int(old.member)-1), host(int(nd.member)-1))
			n.Block(host(int(nd.member)-1), host(int(old.member)-1))
		}
		lost := old.raft.Apply([]byte("lost"), 0)
		next := c.leader(c.others(old)...)
		require.NotSame(c, old, next)
		next.put(c, "b")
		require.Error(c, lost.Error())
		n.Heal()
		time.Sleep(5 * time.Second)
		index := c.leader().put(c, "c")
		time.Sleep(time.Second)
		c.agree(index)
		entries, _, _ := c.nodes[0].state()
		require.Equal(c, []string{"a", "b", "c"}, entries)
	})
}

func TestCrashedHost(t *testing.T) {
	bubble(t, setup{}, func(c *cluster, n *memnet.Network) {
		leader := c.leader()
		leader.put(c, "a")
		n.Cut(host(int(leader.member) - 1))
		next := c.leader(c.others(leader)...)
		next.put(c, "b")
		require.False(c, next.transport.Reachable(leader.id, electionTimeout/2))
		for _, other := range c.others(leader) {
			require.Equal(c, other != next, next.transport.Reachable(other.id, electionTimeout/2))
		}
	})
}

func TestElectNeedsNoTimeout(t *testing.T) {
	bubble(t, setup{}, func(c *cluster, n *memnet.Network) {
		begin := time.Now()
		c.nodes[1].transport.Elect()
		synctest.Wait()
		require.Equal(c, raft.Leader, c.nodes[1].raft.State())
		require.Less(c, time.Since(begin), time.Millisecond)
	})
}

func TestLeadershipTransfer(t *testing.T) {
	bubble(t, setup{}, func(c *cluster, n *memnet.Network) {
		old := c.leader()
		old.put(c, "a")
		next := c.others(old)[0]
		require.NoError(c, old.raft.LeadershipTransferToServer(next.id, raft.ServerAddress(next.addr)).Error())
		synctest.Wait()
		require.Same(c, next, c.leader(next))
	})
}

func TestNudge(t *testing.T) {
	// Without the nudge a follower would hear of the commit an hour later.
	bubble(t, setup{commitTimeout: time.Hour}, func(c *cluster, n *memnet.Network) {
		leader := c.leader()
		for i := range 3 {
			for j := range 3 {
				n.Delay(host(i), host(j), time.Millisecond)
			}
		}
		var slowest []time.Duration
		for i := range 41 {
			index := leader.put(c, fmt.Sprint(i))
			_, _, first := leader.state()
			time.Sleep(20 * time.Millisecond)
			c.agree(index)
			var late time.Duration
			for _, nd := range c.others(leader) {
				_, _, at := nd.state()
				late = max(late, at.Sub(first))
			}
			slowest = append(slowest, late)
		}
		slices.Sort(slowest)
		c.Logf("the last follower applies %v after the leader, at most %v", slowest[20], slowest[40])
		require.LessOrEqual(c, slowest[20], time.Millisecond, "one way")
		require.LessOrEqual(c, slowest[40], 7*time.Millisecond, "with a new connection")
	})
}

func TestConfirmation(t *testing.T) {
	bubble(t, setup{}, func(c *cluster, n *memnet.Network) {
		leader := c.leader()
		leader.put(c, "a")
		tr, term := leader.transport, leader.raft.CurrentTerm()
		member := func(id raft.ServerID) bool { return slices.Contains(c.ids(), id) }
		confirm := func() {
			mark := tr.Mark()
			require.Zero(c, tr.Confirmed(term, mark, member), "answers to earlier appends do not count")
			verified := leader.raft.VerifyLeader()
			for {
				changed := tr.Watch()
				if tr.Confirmed(term, mark, member) >= 1 {
					break
				}
				<-changed
			}
			require.NoError(c, verified.Error())
		}
		begin := time.Now()
		confirm()
		require.Zero(c, time.Since(begin), "the heartbeats go out at once")
		require.Zero(c, tr.Confirmed(term-1, 0, func(id raft.ServerID) bool { return slices.Contains(c.ids(), id) }))
		require.Zero(c, tr.Confirmed(term+1, 0, func(id raft.ServerID) bool { return slices.Contains(c.ids(), id) }))
		require.Zero(c, tr.Confirmed(term, 0, only(leader.id)))
		for _, other := range c.others(leader) {
			require.True(c, tr.Reachable(other.id, electionTimeout))
			require.NotZero(c, tr.Acknowledged(other.id, electionTimeout))
		}

		// An answer that was in flight when the mark was taken confirms nothing.
		for _, nd := range c.others(leader) {
			n.Block(host(int(nd.member)-1), host(int(leader.member)-1))
		}
		leader.raft.VerifyLeader()
		synctest.Wait()
		mark := tr.Mark()
		// Later requests are lost, and the answer to an earlier one triggers another before that.
		for _, nd := range c.others(leader) {
			n.Block(host(int(leader.member)-1), host(int(nd.member)-1))
			n.Unblock(host(int(nd.member)-1), host(int(leader.member)-1))
		}
		time.Sleep(electionTimeout / 4)
		require.Zero(c, tr.Confirmed(term, mark, member))

		next := c.leader(c.others(leader)...)
		n.Heal()
		time.Sleep(2 * electionTimeout)
		require.Zero(c, tr.Confirmed(term, 0, func(id raft.ServerID) bool { return slices.Contains(c.ids(), id) }), "a later term is known")
		require.NotSame(c, leader, next)
	})
}

func TestInstallSnapshot(t *testing.T) {
	bubble(t, setup{trailing: 1}, func(c *cluster, n *memnet.Network) {
		leader := c.leader()
		behind := c.others(leader)[0]
		leader.put(c, "a")
		time.Sleep(time.Second)
		for _, nd := range c.others(behind) {
			n.Block(host(int(nd.member)-1), host(int(behind.member)-1))
		}
		// Many chunks, and more than a window.
		big := strings.Repeat("x", 300_000)
		for i := range 10 {
			leader.put(c, fmt.Sprint(i, big))
		}
		require.NoError(c, leader.raft.Snapshot().Error())
		term := leader.raft.CurrentTerm()
		confirmed := make(chan int, 1)
		behind.restore = func() {
			// The follower's main loop copies for 20 election timeouts.
			mark := leader.transport.Mark()
			time.Sleep(20 * electionTimeout)
			confirmed <- leader.transport.Confirmed(term, mark, only(behind.id))
		}
		n.Heal()
		time.Sleep(40 * electionTimeout)
		require.Same(c, leader, c.leader())
		require.Equal(c, term, leader.raft.CurrentTerm())
		require.Equal(c, 1, <-confirmed, "heartbeats were answered in the meantime")
		index := leader.put(c, "end")
		time.Sleep(time.Second)
		c.agree(index)
	})
}

// A leader with nothing else to send would repeat a rejected snapshot for ever.
func TestStaleSnapshotIsAcknowledgedUnchanged(t *testing.T) {
	bubble(t, setup{}, func(c *cluster, n *memnet.Network) {
		leader := c.leader()
		follower := c.others(leader)[0]
		leader.put(c, "a")
		index := leader.put(c, "b")
		time.Sleep(time.Second)
		follower.restore = func() { c.Error("the state was moved back") }
		term := leader.raft.CurrentTerm()
		send := func(term uint64, size int64) bool {
			var resp raft.InstallSnapshotResponse
			err := leader.transport.InstallSnapshot(follower.id, raft.ServerAddress(follower.addr), &raft.InstallSnapshotRequest{
				RPCHeader: leader.transport.header, SnapshotVersion: 1, Term: term, LastLogIndex: index, LastLogTerm: term,
				Configuration: configuration, Size: size,
			}, &resp, bytes.NewReader(make([]byte, size)))
			require.NoError(c, err)
			return resp.Success
		}
		for _, size := range []int64{0, 10, 700_000} {
			require.True(c, send(term, size))
			require.False(c, send(term-1, size), "the sender no longer leads")
		}
		c.agree(index)
	})
}

// In this test raft reads a snapshot of an earlier term and discards it.
func TestHeartbeatOfDeposedLeader(t *testing.T) {
	tr := New(Config{Self: serverID(1), Term: func() uint64 { return 5 }})
	for term, want := range map[uint64]bool{4: false, 5: true} {
		i := &installation{transport: tr, request: &raft.InstallSnapshotRequest{RPCHeader: header, Term: term}, answer: make(chan raft.RPCResponse, 1)}
		_, err := i.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		heartbeat := &raft.AppendEntriesRequest{RPCHeader: header, Term: term}
		require.Equal(t, want, tr.install.answersFor(heartbeat))
		if want {
			require.False(t, tr.install.answersFor(&raft.AppendEntriesRequest{RPCHeader: header, Term: term, PrevLogEntry: 1}))
			require.False(t, tr.install.answersFor(&raft.AppendEntriesRequest{RPCHeader: header, Term: term + 1}))
			require.False(t, tr.install.answersFor(&raft.AppendEntriesRequest{Term: term}))
			i.answer <- raft.RPCResponse{}
			require.False(t, tr.install.answersFor(heartbeat), "raft answers for itself again")
		}
		i.finish()
		require.Nil(t, tr.install)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	bubble(t, setup{}, func(c *cluster, n *memnet.Network) {
		leader := c.leader()
		leader.put(c, "a")
		for i := range 3 {
			for j := range 3 {
				n.Block(host(i), host(j))
			}
		}
		failed := make(chan error)
		go func() {
			var resp raft.AppendEntriesResponse
			failed <- leader.transport.AppendEntries(c.others(leader)[0].id, raft.ServerAddress(c.others(leader)[0].addr), &raft.AppendEntriesRequest{}, &resp)
		}()
		synctest.Wait()
		begin := time.Now()
		require.NoError(c, leader.transport.Close())
		require.ErrorIs(c, <-failed, raft.ErrTransportShutdown)
		require.NoError(c, leader.transport.Close())
		leader.transport.Elect()
		require.Zero(c, time.Since(begin))
	})
}

func TestIdleGoroutines(t *testing.T) {
	bubble(t, setup{}, func(c *cluster, n *memnet.Network) {
		c.leader().put(c, "a")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		serving := strings.Count(string(stacks), "raftnet.(*Transport).Serve")
		total := strings.Count(string(stacks), "synctest bubble")
		c.Logf("%d goroutines in all, %d serve connections", total, serving)
		require.LessOrEqual(c, serving, 6, "a connection for heartbeats and one for appends, to each follower")
	})
}

func TestOverTCP(t *testing.T) {
	c := start(t, 3, setup{network: func(string) rpc.Network { return tcp{} }, addr: "127.0.0.1:0"})
	defer c.stop()
	c.nodes[0].transport.Elect()
	leader := c.leader()
	var index uint64
	for i := range 200 {
		index = leader.put(t, fmt.Sprint(i, strings.Repeat("x", 100*i)))
	}
	require.Eventually(t, func() bool {
		for _, nd := range c.nodes {
			if _, applied, _ := nd.state(); applied < index {
				return false
			}
		}
		return true
	}, 10*time.Second, time.Millisecond)
	c.agree(index)
}

type tcp struct{}

func (tcp) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
func (tcp) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}
