// SPDX-License-Identifier: Apache-2.0

// The race detector allocates memory of its own, and drops values of sync.Pools.
//go:build !race

package raftnet

import (
	"fmt"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/rpc"
)

// appendTo returns a function that sends an append with one entry of the given size, or none for size 0, over TCP to a
// follower with a raft that accepts everything.
func appendTo(t testing.TB, size int) (send func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	party := func(member uint64) rpc.Party { return rpc.Always(rpc.Identity{Cluster: 1, Member: member}) }
	follower := New(Config{Self: serverID(2), Addr: "b"})
	s := rpc.Serve(l, rpc.ServerConfig{Party: party(2), Raft: follower.Serve})
	response := &raft.AppendEntriesResponse{RPCHeader: follower.header, Term: 1, Success: true}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case req := <-follower.Consumer():
				req.Respond(response, nil)
			case <-ended:
				return
			}
		}
	}()
	client := rpc.NewClient(tcp{}, party(1))
	leader := New(Config{Self: serverID(1), Addr: "a", Client: client, Timeout: 10 * time.Second})
	t.Cleanup(func() { leader.Close(); follower.Close(); client.Close(); s.Close(); close(ended) })

	req := &raft.AppendEntriesRequest{RPCHeader: leader.header, Term: 1, PrevLogEntry: 1, PrevLogTerm: 1, LeaderCommitIndex: 1}
	if size > 0 {
		req.Entries = []*raft.Log{{Index: 2, Term: 1, Data: make([]byte, size), AppendedAt: time.Unix(1, 0)}}
	}
	var resp raft.AppendEntriesResponse
	id, addr := serverID(2), raft.ServerAddress(l.Addr().String())
	return func() {
		if err := leader.AppendEntries(id, addr, req, &resp); err != nil || !resp.Success {
			t.Fatal(err, resp.Success)
		}
	}
}

// BenchmarkAppendEntries sends appends with one entry over TCP, both ends included.
func BenchmarkAppendEntries(b *testing.B) {
	for _, size := range []int{0, 300, 300 << 10} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			send := appendTo(b, size)
			send()
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				send()
			}
		})
	}
}

func TestAppendEntriesNeedsFewAllocations(t *testing.T) {
	// On the side of the leader: a copy of the request, and the reply.
	// On the side of the follower: the request as bytes and as a value, a pointer to the entry and the entry, and
	// notes about the leader.
	for size, most := range map[int]float64{0: 5, 300: 7} {
		send := appendTo(t, size)
		send()
		require.LessOrEqual(t, testing.AllocsPerRun(500, send), most, "%d bytes", size)
	}
}

func TestLargeAppendsNeedMemoryForTheirEntriesOnly(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection drops buffers that are not in use
	const size, sends = appendBytes, 10
	send := appendTo(t, size)
	least := uint64(math.MaxUint64) // a send takes another buffer if the one before has not returned its own yet
	for range sends {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		send()
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	require.Less(t, least, uint64(size+size/8), "bytes of both sides")
}
