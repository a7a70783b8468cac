// SPDX-License-Identifier: Apache-2.0

package rpc

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/memnet"
)

// introduced dials the server and shakes hands.
func introduced(t *testing.T, dial func() (net.Conn, error), id Identity, lane byte) net.Conn {
	t.Helper()
	nc, err := dial()
	require.NoError(t, err)
	h := hello{version: version, id: id}
	if lane == LaneRaft {
		h.to = serverID.Member
	}
	_, err = nc.Write(h.append([]byte{lane}))
	require.NoError(t, err)
	answer, err := readHello(nc)
	require.NoError(t, err)
	require.Equal(t, accepted, answer.verdict)
	return nc
}

func announce(size int) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(size)), 1) }

func known(id Identity) bool { return id.Cluster != 0 }

func TestReceiptIsNeverExceeded(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		r := &receipt{free: 100}
		never := make(chan struct{})
		var held, most atomic.Int64
		var all sync.WaitGroup
		random := rand.New(rand.NewPCG(seed, 0))
		var given atomic.Int64
		for range 300 {
			size, hold, within := random.Int64N(100)+1, random.IntN(50), random.IntN(2000)
			all.Go(func() {
				if !r.take(size, time.Duration(within)*time.Millisecond, never, never) {
					given.Add(1)
					return
				}
				now := held.Add(size)
				for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
				}
				time.Sleep(time.Duration(hold) * time.Millisecond)
				held.Add(-size)
				r.give(size)
			})
		}
		all.Wait()
		require.LessOrEqual(t, most.Load(), int64(100))
		require.EqualValues(t, 100, r.free)
		require.Zero(t, r.waiting.Len())
		require.NotZero(t, given.Load(), "some were granted")
	})
}

func TestGuestHasSmallFrames(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{Member: known})
		for size, passes := range map[int]bool{64 << 10: true, 64<<10 + 1: false, 80 << 20: false} {
			nc := introduced(t, func() (net.Conn, error) { return n.Dial(t.Context(), addr) }, Identity{Member: 9}, LaneCall)
			begin := time.Now()
			_, err := nc.Write(announce(size))
			require.NoError(t, err)
			if passes {
				_, err = nc.Write(make([]byte, size))
				require.NoError(t, err)
			}
			_, err = io.ReadFull(nc, make([]byte, 1))
			require.Equal(t, passes, err == nil, "%d bytes: %v", size, err)
			require.Zero(t, time.Since(begin), "the payload is not awaited")
			nc.Close()
		}
		c := NewClient(n, Always(clientID))
		_, err := c.Call(t.Context(), Peer{1, addr}, 1, make([]byte, 64<<20))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	})
}

func TestGuestsAreFewAndNotIdle(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{Member: known})
		open := func() int {
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.open)
		}
		c := NewClient(n, Always(clientID))
		call := func() {
			_, err := c.Call(t.Context(), Peer{1, addr}, 1, []byte("x"))
			require.NoError(t, err)
		}
		call()
		dial := func() (net.Conn, error) { return n.Dial(t.Context(), addr) }
		first := introduced(t, dial, Identity{Member: 9}, LaneCall)
		for i := range 5000 {
			introduced(t, dial, Identity{Member: 9}, LaneCall)
			if i%100 == 0 { // a guest that makes calls stays
				_, err := first.Write(append(announce(1), 'x'))
				require.NoError(t, err)
				_, err = io.ReadFull(first, make([]byte, frameHeader+2))
				require.NoError(t, err)
			}
		}
		require.Equal(t, 128+1, open())
		time.Sleep(31 * time.Second)
		require.Equal(t, 1, open(), "only the member's connection")
		call()
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	})
}

func TestNewMemberIsNoGuest(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		var member atomic.Bool
		s := serve(t, n, ServerConfig{Member: func(Identity) bool { return member.Load() }})
		c := NewClient(n, Always(clientID))
		size := 1 << 20
		_, err := c.Call(t.Context(), Peer{1, addr}, 1, make([]byte, size))
		require.Error(t, err)
		_, err = c.Call(t.Context(), Peer{1, addr}, 1, nil)
		require.NoError(t, err)
		require.Equal(t, 1, s.guests.list.Len())
		member.Store(true)
		_, err = c.Call(t.Context(), Peer{1, addr}, 1, make([]byte, size))
		require.NoError(t, err, "on the same connection")
		synctest.Wait()
		require.Zero(t, s.guests.list.Len())
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
	})
}

// Members that announce more than they send hold up the large frames of their lane, but only for a
// bounded time, and nothing else.
func TestFramesOfMembersAreBoundedTogether(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		limits := Limits{CallBytes: 1 << 20, RaftBytes: 1 << 20, Receipt: 2 << 20}
		heard := make(chan int, 9)
		s := serve(t, n, ServerConfig{Member: known, Limits: limits, Raft: func(ctx context.Context, c *Conn) {
			defer c.Guard(ctx)(nil)
			for {
				_, payload, err := c.Receive()
				if err != nil {
					return
				}
				heard <- len(payload)
			}
		}})
		dial := func() (net.Conn, error) { return n.Dial(t.Context(), addr) }
		for range 40 {
			nc := introduced(t, dial, clientID, LaneCall)
			go func() { nc.Write(append(announce(1<<20), make([]byte, 1<<20-1)...)) }()
		}
		synctest.Wait()
		calls := s.receipts[LaneCall]
		calls.mu.Lock()
		require.Zero(t, calls.free)
		require.Equal(t, 38, calls.waiting.Len())
		calls.mu.Unlock()

		c := NewClient(n, Always(clientID))
		_, err := c.Call(t.Context(), Peer{1, addr}, 1, make([]byte, 64<<10))
		require.NoError(t, err, "a small frame")
		raft := introduced(t, dial, clientID, LaneRaft)
		for range 3 {
			_, err = raft.Write(append(announce(1<<20), make([]byte, 1<<20)...))
			require.NoError(t, err)
			require.Equal(t, 1<<20, <-heard, "a frame on the other lane")
		}
		time.Sleep(time.Minute)
		_, err = c.Call(t.Context(), Peer{1, addr}, 1, make([]byte, 1<<20-100))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, s.Close())
		require.Equal(t, []int64{2 << 20, 2 << 20}, []int64{calls.free, s.receipts[LaneRaft].free})
	})
}

// A server that closes does not wait for waiting frames.
func TestCloseDoesNotWaitForReceipt(t *testing.T) {
	bubble(t, func(t *testing.T, n *memnet.Network) {
		s := serve(t, n, ServerConfig{Limits: Limits{CallBytes: 1 << 20, Receipt: 1 << 20, RaftBytes: 1 << 20}})
		for range 5 {
			nc := introduced(t, func() (net.Conn, error) { return n.Dial(t.Context(), addr) }, clientID, LaneCall)
			_, err := nc.Write(announce(1 << 20))
			require.NoError(t, err)
		}
		synctest.Wait()
		begin := time.Now()
		require.NoError(t, s.Close())
		require.Zero(t, time.Since(begin))
	})
}

// Over TCP the system itself buffers data. The server must not add to that.
func TestStrangersOverTCPTakeNoMemory(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := Serve(l, ServerConfig{Party: Always(serverID), Call: echo, Member: known})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	chunk := make([]byte, 1<<20)
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			nc := introduced(t, func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }, Identity{Member: 9}, LaneCall)
			defer nc.Close()
			_, err := nc.Write(announce(80 << 20))
			for i := 0; i < 79 && err == nil; i++ {
				_, err = nc.Write(chunk)
			}
			if err == nil {
				_, err = nc.Read(chunk[:1]) // returns when the connection ends
			}
			if err == nil {
				panic("a stranger's frame of 80 MiB was answered")
			}
		})
	}
	c := NewClient(plainTCP{}, Always(clientID))
	for range 100 {
		_, err := c.Call(t.Context(), Peer{1, l.Addr().String()}, 1, []byte("x"))
		require.NoError(t, err)
	}
	all.Wait()
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
	require.NoError(t, c.Close())
	require.NoError(t, s.Close())
}

type plainTCP struct{}

func (plainTCP) Listen(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }

func (plainTCP) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}
