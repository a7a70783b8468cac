// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/run"
)

const addr = "server:1"

var (
	serverID = Identity{Cluster: 7, Member: 1}
	clientID = Identity{Cluster: 7, Member: 2}
)

func echo(_ context.Context, _ Identity, method byte, req []byte) ([]byte, error) {
	return append([]byte{method}, req...), nil
}

func serve(t *testing.T, n *memnet.Network, cfg ServerConfig) *Server {
	t.Helper()
	l, err := n.Listen(addr)
	require.NoError(t, err)
	if cfg.Self == nil {
		cfg.Party = Always(serverID)
	}
	if cfg.Call == nil {
		cfg.Call = echo
	}
	return Serve(l, cfg)
}

// bubble runs f on a network in a bubble. The end of the bubble detects leaked goroutines.
func bubble(t *testing.T, f func(t *testing.T, n *memnet.Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, memnet.New()) })
}

func TestCall(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		var connections atomic.Int32
		s := serve(t, n, ServerConfig{Call: func(ctx context.Context, from Identity, method byte, req []byte) ([]byte, error) {
			require.Equal(t, clientID, from)
			switch method {
			case 1:
				return nil, &RemoteError{Code: 9, Text: "no"}
			case 2:
				return nil, errors.New("plain")
			}
			return echo(ctx, from, method, req)
		}})
		c := NewClient(counting{n, &connections}, Always(clientID))
		peer := Peer{serverID.Member, addr}
		for _, size := range []int{0, 1, 4096, firstRead, firstRead + 1, 3 << 20, growRead*firstRead + 1} {
			req := bytes.Repeat([]byte("x"), size)
			resp, err := c.Call(t.Context(), peer, 3, req)
			require.NoError(t, err)
			require.True(t, bytes.Equal(append([]byte{3}, req...), resp))
		}
		var remote *RemoteError
		_, err := c.Call(t.Context(), peer, 1, nil)
		require.ErrorAs(t, err, &remote)
		require.Equal(t, RemoteError{9, "no"}, *remote)
		_, err = c.Call(t.Context(), peer, 2, nil)
		require.ErrorAs(t, err, &remote)
		require.Equal(t, RemoteError{0, "plain"}, *remote)
		_, err = c.Call(t.Context(), peer, 3, make([]byte, 80<<20+1))
		require.ErrorIs(t, err, ErrTooLarge)
		require.EqualValues(t, 1, connections.Load(), "one connection served all calls")
		require.NoError(t, c.Close())
		_, err = c.Call(t.Context(), peer, 3, nil)
		require.ErrorIs(t, err, ErrClosed)
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
	})
}

// counting is a network that counts its dials.
type counting struct {
	*memnet.Network
	dials *atomic.Int32
}

func (c counting) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c.dials.Add(1)
	return c.Network.Dial(ctx, addr)
}

// After an unanswered request, callers do not try the idle connections of the same age one by one.
func TestSilentConnectionsAreDropped(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{Raft: func(_ context.Context, c *Conn) { c.Receive() }})
		defer s.Close()
		c := NewClient(n.Host("client"), Always(clientID))
		defer c.Close()
		c.SetPatience(time.Second)
		peer := Peer{serverID.Member, addr}
		var idle []*Conn
		for range 3 {
			for _, lane := range []byte{LaneCall, LaneRaft} {
				conn, err := c.Open(t.Context(), peer, lane)
				require.NoError(t, err)
				idle = append(idle, conn)
			}
		}
		for _, conn := range idle {
			conn.Release()
		}
		time.Sleep(time.Second)
		call := func(limit time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			_, err := c.Call(ctx, peer, 1, nil)
			return err
		}
		require.NoError(t, call(time.Minute))
		n.Silence("client", "server")
		require.ErrorIs(t, call(time.Millisecond), context.DeadlineExceeded, "a short deadline proves nothing")
		require.ErrorIs(t, call(time.Second), context.DeadlineExceeded)
		require.NoError(t, call(time.Millisecond))
		conn, err := c.Open(t.Context(), peer, LaneRaft)
		require.NoError(t, err)
		require.False(t, conn.Reused())
		conn.Release()
	})
}

func TestManyCallsShareConnections(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		var connections, calls atomic.Int32
		s := serve(t, n, ServerConfig{Call: func(context.Context, Identity, byte, []byte) ([]byte, error) {
			calls.Add(1)
			time.Sleep(time.Second)
			return nil, nil
		}})
		defer s.Close()
		c := NewClient(counting{n, &connections}, Always(clientID))
		defer c.Close()
		var all sync.WaitGroup
		for range 10 * maxCalls {
			all.Go(func() {
				_, err := c.Call(t.Context(), Peer{serverID.Member, addr}, 1, nil)
				require.NoError(t, err)
			})
		}
		synctest.Wait()
		require.EqualValues(t, maxCalls, connections.Load())
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := c.Call(ctx, Peer{serverID.Member, addr}, 1, nil)
		var dial *DialError
		require.ErrorAs(t, err, &dial, "the request was not sent")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		all.Wait()
		require.EqualValues(t, 10*maxCalls, calls.Load())
		require.Empty(t, c.turns.peers)
	})
}

// A member's handshake is not closed however many strangers connect. Among strangers, that of the host
// with the most connections is.
func TestFloodDisplacesItself(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{Limits: Limits{Pending: 8}, Raft: func(_ context.Context, c *Conn) { c.Receive() }})
		defer s.Close()
		member := NewClient(n.Host("member"), Always(clientID))
		defer member.Close()
		conn, err := member.Open(t.Context(), Peer{serverID.Member, addr}, LaneRaft)
		require.NoError(t, err)
		defer conn.Close()

		dial := func(host string) net.Conn {
			nc, err := n.Host(host).Dial(t.Context(), addr)
			require.NoError(t, err)
			synctest.Wait()
			return nc
		}
		open := func(nc net.Conn) bool {
			nc.SetReadDeadline(time.Now().Add(time.Millisecond))
			_, err := nc.Read(make([]byte, 1))
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
		slow, stranger := dial("member"), dial("stranger")
		defer slow.Close()
		defer stranger.Close()
		var flood []net.Conn
		for range 100 {
			flood = append(flood, dial("flood"))
			defer flood[len(flood)-1].Close()
		}
		require.True(t, open(slow))
		require.True(t, open(stranger))
		left := 0
		for _, nc := range flood {
			if open(nc) {
				left++
			}
		}
		require.Equal(t, 6, left)
	})
}

func TestReplyTooLarge(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{Limits: Limits{CallBytes: 100}, Call: func(context.Context, Identity, byte, []byte) ([]byte, error) {
			return make([]byte, 101), nil
		}})
		defer s.Close()
		c := NewClient(n, Always(clientID))
		defer c.Close()
		var remote *RemoteError
		_, err := c.Call(t.Context(), Peer{serverID.Member, addr}, 0, nil)
		require.ErrorAs(t, err, &remote)
		require.Contains(t, remote.Text, "too large")
		_, err = c.Call(t.Context(), Peer{serverID.Member, addr}, 0, make([]byte, 101))
		require.Error(t, err, "the server closes the connection")
	})
}

func TestRejectedHandshakes(t *testing.T) {
	tests := map[string]struct {
		caller Identity
		to     uint64
		want   error
	}{
		"cluster":   {Identity{Cluster: 8, Member: 2}, 1, ErrClusterMismatch},
		"epoch":     {Identity{Cluster: 7, Epoch: 2, Member: 2}, 1, ErrClusterMismatch},
		"member":    {Identity{Cluster: 7, Member: 2}, 3, ErrMemberMismatch},
		"both":      {Identity{Cluster: 8, Member: 2}, 3, ErrClusterMismatch},
		"forgotten": {Identity{Cluster: 7, Epoch: 1, Member: 2, Incarnation: 5}, 1, ErrForgotten},
		"removed":   {Identity{Cluster: 7, Epoch: 1, Member: 3, Since: 6}, 1, ErrRemoved},
		"stranger":  {Identity{Cluster: 7, Member: 4}, 1, ErrStranger},
	}
	for name, test := range tests {
		for _, lane := range []byte{LaneCall, LaneRaft} {
			t.Run(name+string(lane), func(t *testing.T) {
				bubble(t, func(t *testing.T, n *memnet.Network) {
					refused := make(chan error, 1)
					s := serve(t, n, ServerConfig{
						Party: Party{
							Self:  func() Identity { return Identity{Cluster: 7, Epoch: 1, Member: 1} },
							Judge: judge,
						},
						Call:    func(context.Context, Identity, byte, []byte) ([]byte, error) { panic("reached") },
						Raft:    func(context.Context, *Conn) { panic("reached") },
						Refused: func(_ net.Addr, err error) { refused <- err },
					})
					defer s.Close()
					c := NewClient(n, Always(test.caller))
					defer c.Close()
					var told *DialError
					c.Refused = func(err *DialError) { told = err }
					_, err := c.Open(t.Context(), Peer{test.to, addr}, lane)
					require.ErrorIs(t, err, test.want)
					var dial *DialError
					require.ErrorAs(t, err, &dial)
					require.Same(t, dial, told)
					require.ErrorIs(t, <-refused, test.want)
				})
			})
		}
	}
}

// The length of a hello is one byte, whatever its contents.
func TestLongestHello(t *testing.T) {
	id := Identity{math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64, run.Line{}}
	for range 20 {
		id.Runs = id.Runs.Next(run.Number{}, math.MaxUint64)
	}
	id.Runs.Count = math.MaxUint64
	want := hello{version: version, id: id, to: math.MaxUint64, verdict: refusedEarly}
	got, err := readHello(bytes.NewReader(want.append(nil)))
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// judge is the Judge of the tests' Parties.
func judge(other Identity, _ byte) error {
	switch {
	case other.Incarnation == 5:
		return ErrForgotten
	case other.Since > 0:
		return ErrRemoved
	case other.Member == 4:
		return ErrStranger
	}
	return nil
}

// A node in no cluster may call any node. A node that is in no cluster itself is reached only by such
// callers.
func TestNodeWithoutClusterMayCallAnyNode(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		var self atomic.Pointer[Identity]
		self.Store(&Identity{Cluster: 7, Member: 1})
		s := serve(t, n, ServerConfig{
			Party:   Party{Self: func() Identity { return *self.Load() }},
			Raft:    func(context.Context, *Conn) { panic("reached") },
			Refused: func(_ net.Addr, err error) { require.ErrorIs(t, err, ErrClusterMismatch) },
		})
		defer s.Close()
		newcomer := NewClient(n, Always(Identity{Member: 9}))
		defer newcomer.Close()
		conn, err := newcomer.Open(t.Context(), Peer{Addr: addr}, LaneCall)
		require.NoError(t, err)
		require.Equal(t, *self.Load(), conn.Peer())
		conn.Close()
		_, err = newcomer.Open(t.Context(), Peer{Addr: addr}, LaneRaft)
		require.ErrorIs(t, err, ErrClusterMismatch)

		self.Store(&Identity{Member: 1})
		member := NewClient(n, Always(clientID))
		defer member.Close()
		_, err = member.Open(t.Context(), Peer{1, addr}, LaneRaft)
		require.ErrorIs(t, err, ErrEarly)
	})
}

func TestVersionMismatch(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		refused := make(chan error, 1)
		s := serve(t, n, ServerConfig{Refused: func(_ net.Addr, err error) { refused <- err }})
		defer s.Close()
		nc, err := n.Dial(t.Context(), addr)
		require.NoError(t, err)
		newer := hello{version: version + 1, id: clientID, to: serverID.Member}
		nc.Write(newer.append([]byte{LaneCall}))
		answer, err := readHello(nc)
		require.NoError(t, err)
		require.ErrorIs(t, Always(clientID).judgeAnswer(answer, serverID.Member, LaneCall), ErrVersion)
		require.ErrorIs(t, <-refused, ErrVersion)
		require.ErrorIs(t, Always(clientID).judgeAnswer(hello{version: version + 1}, 1, LaneCall), ErrVersion)
	})
}

func TestInTheClear(t *testing.T) {
	ours := hello{version: version, id: clientID, to: 1}.append(nil)
	for _, start := range [][]byte{ours, RefuseTLS(nil), append([]byte{LaneCall}, ours...), append([]byte{LaneRaft}, ours...)} {
		require.True(t, InTheClear(start[:5]))
		require.False(t, InTheClear(start[:3]))
	}
	for _, start := range []string{"", "C", "GET /", "\x16\x03\x01\x02\x00", "Xcot\xe9"} {
		require.False(t, InTheClear([]byte(start)))
	}
	answer, err := readHello(bytes.NewReader(RefuseTLS(nil)))
	require.NoError(t, err)
	require.ErrorIs(t, Always(clientID).judgeAnswer(answer, 1, LaneCall), ErrTLS)
	require.Equal(t, Identity{}, answer.id, "a rejected node learns no identity")
}

func TestImpostor(t *testing.T) {
	// The server accepts every caller, but is not the intended member.
	bubble(t, func(t *testing.T, n *memnet.Network) {
		caller := Party{Self: Always(clientID).Self, Judge: judge}
		answers := func(id Identity, v verdict) error {
			return caller.judgeAnswer(hello{version: version, id: id, verdict: v}, serverID.Member, LaneRaft)
		}
		require.ErrorIs(t, answers(Identity{Cluster: 7, Member: 3}, accepted), ErrMemberMismatch)
		require.ErrorIs(t, answers(Identity{Cluster: 8, Member: 1}, accepted), ErrClusterMismatch)
		require.ErrorIs(t, answers(Identity{Cluster: 7, Member: 1, Incarnation: 5}, accepted), ErrForgotten)
		require.ErrorIs(t, answers(serverID, 99), ErrMalformed)
		require.NoError(t, answers(serverID, accepted))
	})
}

func TestCancelEndsCall(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{Call: func(ctx context.Context, _ Identity, method byte, _ []byte) ([]byte, error) {
			if method == 1 {
				<-ctx.Done()
			}
			return nil, ctx.Err()
		}})
		c := NewClient(n, Always(clientID))
		peer := Peer{serverID.Member, addr}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := c.Call(ctx, peer, 1, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		_, err = c.Call(t.Context(), peer, 0, nil)
		require.NoError(t, err, "the next call uses another connection")

		failed := make(chan error)
		go func() {
			_, err := c.Call(t.Context(), peer, 1, nil)
			failed <- err
		}()
		synctest.Wait()
		c.Close()
		require.ErrorIs(t, <-failed, ErrClosed)
		require.NoError(t, s.Close())
	})
}

func TestCancelEndsDial(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		l, err := n.Listen(addr) // nothing accepts, so the handshake hangs
		require.NoError(t, err)
		defer l.Close()
		c := NewClient(n, Always(clientID))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Call(ctx, Peer{1, addr}, 0, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		start := time.Now()
		_, err = c.Call(t.Context(), Peer{1, addr}, 0, nil)
		require.Error(t, err)
		require.Equal(t, 5*time.Second, time.Since(start), "a handshake has its own limit")

		failed := make(chan error)
		go func() {
			_, err := c.Call(t.Context(), Peer{1, addr}, 0, nil)
			failed <- err
		}()
		synctest.Wait()
		c.Close()
		require.ErrorIs(t, <-failed, ErrClosed)
	})
}

func TestRestartedPeer(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		var dials atomic.Int32
		c := NewClient(counting{n, &dials}, Always(clientID))
		defer c.Close()
		peer := Peer{serverID.Member, addr}
		s := serve(t, n, ServerConfig{})
		var open []*Conn
		for range keepIdle + 2 {
			conn, err := c.Open(t.Context(), peer, LaneCall)
			require.NoError(t, err)
			open = append(open, conn)
		}
		for _, conn := range open {
			conn.Release()
		}
		require.Len(t, c.pool.idle[slot{peer, LaneCall}], keepIdle)
		s.Close()
		s = serve(t, n, ServerConfig{})
		defer s.Close()
		_, err := c.Call(t.Context(), peer, 0, nil)
		require.Error(t, err, "the connection was to the old process")
		_, err = c.Call(t.Context(), peer, 0, nil)
		require.NoError(t, err, "the other old connections are closed, too")
		require.EqualValues(t, keepIdle+3, dials.Load())
	})
}

func TestIdleConnectionsAreSwept(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{})
		defer s.Close()
		c := NewClient(n, Always(clientID))
		defer c.Close()
		peer := Peer{serverID.Member, addr}
		first, err := c.Open(t.Context(), peer, LaneCall)
		require.NoError(t, err)
		second, err := c.Open(t.Context(), peer, LaneCall)
		require.NoError(t, err)
		first.Release()
		second.Release()
		for range 5 {
			time.Sleep(time.Minute)
			_, err := c.Call(t.Context(), peer, 0, nil)
			require.NoError(t, err)
		}
		require.Len(t, c.pool.open, 1)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		require.Len(t, s.open, 1, "the server has closed it, too")
	})
}

func TestStrangers(t *testing.T) {
	header := func(size uint32) []byte { return append(binary.BigEndian.AppendUint32(nil, size), 1) }
	good := hello{version: version, id: clientID, to: serverID.Member}.append([]byte{LaneCall})
	tests := map[string]struct {
		say    []byte
		within time.Duration // after which the server has closed the connection
		heard  error
	}{
		"silence":            {nil, 5 * time.Second, nil},
		"http":               {[]byte("GET / HTTP/1.1\r\n\r\n"), 0, ErrMalformed},
		"tls":                {[]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 0, ErrTLS},
		"lane, then garbage": {[]byte("Cgarbage and more"), 0, ErrMalformed},
		"no such lane":       {[]byte("X" + magic), 0, ErrMalformed},
		"a lane not served":  {append([]byte{LaneRaft}, good[1:]...), 0, ErrMalformed},
		"half a hello":       {good[:9], 5 * time.Second, nil},
		"bad fields":         {append(append([]byte("C"+magic), version, 3), 0xff, 0xff, 0xff), 0, ErrMalformed},
		"huge frame":         {append(good, header(1<<32-1)...), 0, nil},
		"large frame":        {append(good, header(64<<20)...), 5*time.Second + 64*time.Second, nil},
		"half a header":      {append(good, 0, 0), 5 * time.Second, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *memnet.Network) {
				refused := make(chan error, 1)
				s := serve(t, n, ServerConfig{Refused: func(_ net.Addr, err error) { refused <- err }})
				nc, err := n.Dial(t.Context(), addr)
				require.NoError(t, err)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := time.Now()
				nc.Write(test.say)
				io.ReadAll(nc)
				require.InDelta(t, test.within.Seconds(), time.Since(start).Seconds(), 0.1)
				runtime.ReadMemStats(&after)
				require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
				synctest.Wait()
				select {
				case err := <-refused:
					require.ErrorIs(t, err, test.heard)
				default:
					require.NoError(t, test.heard)
				}
				require.Empty(t, s.open)
				require.NoError(t, s.Close())
			})
		})
	}
}

func TestTrickle(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{})
		defer s.Close()
		good := hello{version: version, id: clientID, to: serverID.Member}.append([]byte{LaneCall})
		for name, fast := range map[string]int{"hello": 1, "frame": len(good)} {
			nc, err := n.Dial(t.Context(), addr)
			require.NoError(t, err)
			nc.Write(good[:fast])
			start := time.Now()
			slow := append(good[fast:], make([]byte, 1000)...)
			copy(slow[len(good)-fast:], []byte{0, 0, 1, 0, 1})
			for err == nil {
				_, err = nc.Write(slow[:1])
				slow = slow[1:]
				time.Sleep(time.Second)
			}
			require.Less(t, time.Since(start), 12*time.Second, name)
		}
	})
}

func TestManySilentConnections(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{})
		defer s.Close()
		var strangers []net.Conn
		for range 1000 {
			nc, err := n.Dial(t.Context(), addr)
			require.NoError(t, err)
			strangers = append(strangers, nc)
			synctest.Wait()
		}
		s.mu.Lock()
		require.Len(t, s.open, 128)
		s.mu.Unlock()
		c := NewClient(n, Always(clientID))
		defer c.Close()
		_, err := c.Call(t.Context(), Peer{serverID.Member, addr}, 0, nil)
		require.NoError(t, err, "a node connects nevertheless")
		for _, nc := range strangers {
			nc.Close()
		}
	})
}

func TestConcurrentCalls(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{})
		c := NewClient(n, Always(clientID))
		var calls sync.WaitGroup
		for i := range 50 {
			calls.Go(func() {
				text := strings.Repeat("x", i*1000)
				for range 20 {
					resp, err := c.Call(t.Context(), Peer{serverID.Member, addr}, byte(i), []byte(text))
					require.NoError(t, err)
					require.Equal(t, string([]byte{byte(i)})+text, string(resp))
				}
			})
		}
		calls.Wait()
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	})
}

func FuzzHello(f *testing.F) {
	f.Add(hello{version: version, id: clientID, to: 1}.append(nil))
	f.Add(hello{version: version, id: serverID, verdict: refusedMember}.append(nil))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHello(bytes.NewReader(b))
		if err != nil || h.version != version {
			return
		}
		again, err := readHello(bytes.NewReader(h.append(nil)))
		require.NoError(t, err)
		require.Equal(t, h, again)
	})
}

// wireConn is a connection that reads from a buffer.
type wireConn struct {
	net.Conn
	io.Reader
	bytes.Buffer
}

func (c *wireConn) Read(p []byte) (int, error)        { return c.Reader.Read(p) }
func (c *wireConn) Write(p []byte) (int, error)       { return c.Buffer.Write(p) }
func (c *wireConn) SetReadDeadline(t time.Time) error { return nil }

func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 5, 'x', 0, 0, 0, 0, 6})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		limits := Limits{CallBytes: 1 << 20}.withDefaults()
		out := &wireConn{}
		in := newConn(&wireConn{Reader: bytes.NewReader(b)}, LaneCall, limits)
		back := newConn(out, LaneCall, limits)
		for {
			method, payload, err := in.Receive()
			if err != nil {
				break
			}
			require.NoError(t, back.Send(method, func(b []byte) []byte { return append(b, payload...) }))
		}
		require.True(t, bytes.HasPrefix(b, out.Bytes()))
	})
}

func FuzzRemoteError(f *testing.F) {
	f.Add(appendRemoteError(nil, &RemoteError{Code: 3, Text: "text"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var remote *RemoteError
		if err := decodeRemoteError(b); errors.As(err, &remote) {
			require.Equal(t, err, decodeRemoteError(appendRemoteError(nil, err)))
		}
	})
}

// A connection may outlast the facts that were known when it was made.
func TestConnectionToRejectedNodeIsNotReused(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{})
		defer s.Close()
		var unwelcome atomic.Bool
		c := NewClient(n, Party{Self: Always(clientID).Self, Judge: func(Identity, byte) error {
			if unwelcome.Load() {
				return ErrForgotten
			}
			return nil
		}})
		defer c.Close()
		peer := Peer{serverID.Member, addr}
		for range 2 {
			_, err := c.Call(t.Context(), peer, 0, nil)
			require.NoError(t, err)
		}
		unwelcome.Store(true)
		_, err := c.Call(t.Context(), peer, 0, nil)
		require.ErrorIs(t, err, ErrForgotten)
		unwelcome.Store(false)
		_, err = c.Call(t.Context(), peer, 0, nil)
		require.NoError(t, err)
	})
}

func TestPartyCountsFrames(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		party := func(id Identity) (p Party, sent, received *atomic.Int64) {
			p, sent, received = Always(id), new(atomic.Int64), new(atomic.Int64)
			p.Sent, p.Received = func(bytes int) { sent.Add(int64(bytes)) }, func(bytes int) { received.Add(int64(bytes)) }
			return p, sent, received
		}
		server, fromServer, toServer := party(serverID)
		s := serve(t, n, ServerConfig{Party: server})
		client, fromClient, toClient := party(clientID)
		c := NewClient(n, client)
		for _, size := range []int{10, 1 << 20} {
			_, err := c.Call(t.Context(), Peer{serverID.Member, addr}, 3, make([]byte, size))
			require.NoError(t, err)
		}
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
		require.EqualValues(t, 10+1<<20+2*frameHeader, fromClient.Load())
		require.Equal(t, fromClient.Load(), toServer.Load())
		require.Greater(t, toClient.Load(), int64(1<<20))
		require.Equal(t, fromServer.Load(), toClient.Load())
	})
}
