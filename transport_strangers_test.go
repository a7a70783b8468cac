// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/rpc"
)

// A stranger is a program that reaches the port of a node over TCP.
type stranger struct {
	t     *testing.T
	addr  string
	conns []net.Conn
}

func (s *stranger) dial() net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	require.NoError(s.t, err)
	s.conns = append(s.conns, conn)
	return conn
}

// hangUp closes all connections.
func (s *stranger) hangUp() {
	for _, conn := range s.conns {
		conn.Close()
	}
	s.conns = nil
}

// say connects and sends bytes. The node may close the connection meanwhile.
func (s *stranger) say(b []byte) net.Conn {
	s.t.Helper()
	conn := s.dial()
	_, _ = conn.Write(b)
	return conn
}

// recorded is a network that keeps the first write to its connections.
type recorded struct {
	coterie.Network
	first []byte
}

type recordedConn struct {
	net.Conn
	of *recorded
}

func (r *recorded) Dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	return recordedConn{conn, r}, err
}

func (c recordedConn) Write(b []byte) (int, error) {
	if c.of.first == nil {
		c.of.first = append([]byte(nil), b...)
	}
	return c.Conn.Write(b)
}

// handshake returns the first bytes that a member sends on a lane. A program that has listened can send the
// same.
func handshake(t *testing.T, from, to *coterie.Node, lane byte) []byte {
	t.Helper()
	network := &recorded{}
	client := rpc.NewClient(network, posing(from.ID(), to))
	defer client.Close()
	conn, err := client.Open(t.Context(), rpc.Peer{ID: uint64(to.ID()), Addr: to.Status().Addr}, lane)
	require.NoError(t, err)
	conn.Close()
	require.Equal(t, lane, network.first[0])
	return network.first
}

// frame returns the beginning of a frame, with the length that it announces.
func frame(size uint32, method byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, size), method)
}

// heapInUse returns the size of the heap after garbage collection.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC() // the second one frees objects with finalizers
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// Strangers that reach a node's port cannot stop it, make it grow or cause an election, no matter which bytes
// they send, even if they pose as members.
func TestNodeServesAmongStrangers(t *testing.T) {
	if testing.Short() {
		t.Skip("opens thousands of connections")
	}
	c := coterietest.NewCluster(t, 3, coterietest.WithTCP())
	seed := rand.Uint64()
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	leader, n := c.Leader(), c.Follower()
	put(t, n, "k", "v")
	term := leader.Status().Term
	serves := func(step string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := leader.Put(ctx, "k", step)
		require.NoError(t, err, step)
		r, err := n.Get(ctx, "k")
		require.NoError(t, err, step)
		require.Equal(t, step, r.KVs[0].Value)
	}
	before := heapInUse()
	grown := func(s *stranger, step string) {
		t.Helper()
		serves(step)
		if now := heapInUse(); now > before {
			t.Logf("%d connections, %s: %d KiB more", len(s.conns), step, (now-before)>>10)
			require.Less(t, now-before, uint64(64<<20), step)
		}
		s.hangUp()
	}
	for _, target := range []*coterie.Node{leader, n} {
		s := &stranger{t: t, addr: target.Status().Addr}
		call, raft := handshake(t, n, leader, rpc.LaneCall), handshake(t, n, leader, rpc.LaneRaft)
		if target == n {
			call, raft = handshake(t, leader, n, rpc.LaneCall), handshake(t, leader, n, rpc.LaneRaft)
		}

		for range 100 {
			garbage := make([]byte, random.IntN(2000))
			for i := range garbage {
				garbage[i] = byte(random.Uint32())
			}
			s.say(garbage)
			s.say(append(append([]byte(nil), call...), garbage...))
			s.say(append(append([]byte(nil), raft...), garbage...))
			s.say([]byte("GET / HTTP/1.1\r\nHost: " + s.addr + "\r\n\r\n"))
			s.say([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")) // TLS
		}
		grown(s, "garbage")

		for cut := range len(call) {
			s.say(call[:cut])
			s.say(raft[:cut])
			broken := append([]byte(nil), call...)
			broken[cut] ^= byte(1 + random.IntN(255))
			s.say(broken)
		}
		grown(s, "half a handshake")

		for _, first := range [][]byte{call, raft} {
			for method := range byte(8) {
				for _, size := range []uint32{1<<32 - 1, 1 << 31, 80<<20 + 1, 80 << 20, 64 << 20} {
					for range 5 {
						// Up to this size a node allocates memory because of a length alone.
						s.say(append(append(append([]byte(nil), first...), frame(size, method)...), make([]byte, 1000)...))
					}
				}
			}
		}
		grown(s, "huge frames")

		// Byte by byte. That cannot last: a frame that has begun must end in time.
		var trickles sync.WaitGroup
		for range 20 {
			for _, b := range [][]byte{call, append(append([]byte(nil), raft...), frame(1<<20, 1)...)} {
				conn := s.dial()
				trickles.Go(func() {
					for i := range b {
						if _, err := conn.Write(b[i : i+1]); err != nil {
							return
						}
						runtime.Gosched()
					}
				})
			}
		}
		trickles.Wait()
		grown(s, "a trickle")

		for range 1000 {
			s.dial()
		}
		grown(s, "silence")
	}
	require.Equal(t, term, leader.Status().Term)
	require.Equal(t, leader.ID(), c.Leader().ID())
	for _, n := range c.Nodes() {
		require.NoError(t, n.Check(t.Context()))
	}
	sameState(t, c)
}

// The number of silent connections is bounded, so that a node does not run out of connections.
func TestSilentConnectionsMakeRoomForOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("opens hundreds of connections")
	}
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true, Addr: "127.0.0.1:0"})
	require.NoError(t, err)
	defer n.Close()
	s := &stranger{t: t, addr: n.Status().Addr}
	defer s.hangUp()
	for range 300 {
		s.dial()
	}
	// This is sooner than the timeout of a handshake.
	soon := time.Now().Add(3 * time.Second)
	for _, conn := range s.conns[:150] {
		require.NoError(t, conn.SetReadDeadline(soon))
		_, err := conn.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the node did not close it")
	}
	put(t, n, "k", "v")
}
