// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A node asks to be let in, and pings the other nodes meanwhile. A node that does not have the new record yet
// replies that the member has other data. If that reply arrives after the admission, it says nothing about the
// data of the caller.
func TestReplyOlderThanRecordIsNoDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New()
		n, err := Open(t.Context(), Config{InMemory: true, Addr: "a:1", Join: []string{"b:1"}, Network: network.Host("a")})
		require.NoError(t, err)
		defer n.Close()

		var asked atomic.Pointer[[]byte] // the last question
		reply := make(chan struct{})
		pong := membership.Pong{Member: 42, Forgotten: true}.Append(nil)
		l, err := network.Host("b").Listen("b:1")
		require.NoError(t, err)
		identity := n.transport.hello()
		identity.Cluster, identity.Member = 1, 42
		other := rpc.Serve(l, rpc.ServerConfig{
			Party: rpc.Always(identity),
			Call: func(_ context.Context, _ rpc.Identity, method byte, req []byte) ([]byte, error) {
				if method != methodPing {
					return nil, remoteError(errNotLeader)
				}
				asked.Store(&req)
				<-reply
				return pong, nil
			},
		})
		defer other.Close()

		pinged := make(chan error, 1)
		ping := func() {
			_, err := n.joiner.ping(t.Context(), 0, "b:1")
			pinged <- err
		}
		go ping()
		synctest.Wait() // the other node has the question
		require.NoError(t, n.identity.confirm(membership.Admission{Cluster: 1, Index: 5, Term: 3}))
		close(reply)
		require.NoError(t, <-pinged)
		synctest.Wait()
		require.False(t, n.identity.disputed.Load(), "the question was older than the record")
		require.NotErrorIs(t, n.peers.judge(rpc.Identity{Member: 42}, rpc.LaneRaft), rpc.ErrEarly, "the node takes part in raft")

		go ping()
		require.NoError(t, <-pinged)
		require.True(t, n.identity.disputed.Load(), "the question is newer than the record")
		require.Equal(t, wire.Uint(wire.Text(nil, 1, "a:1"), 2, 5), *asked.Load(), "the question has Since")
	})
}

// The handshake of a connection may be older than the caller's record, but its questions are not. If the log
// of a node ends before that record, the node judges the caller by the question.
func TestPingCarriesSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := Open(t.Context(), Config{InMemory: true})
		require.NoError(t, err)
		defer n.Close()
		require.NoError(t, n.Ready(t.Context()))

		anew := rpc.Identity{Member: uint64(n.id), Incarnation: n.identity.Load().Incarnation + 1}
		forgotten := func(req []byte) bool {
			p, err := membership.ReadPong(n.joiner.answerPing(anew, req))
			require.NoError(t, err)
			return p.Forgotten
		}
		applied := n.views.Load().Index
		require.True(t, forgotten(nil))
		require.True(t, forgotten(wire.Uint(nil, 2, applied)))
		require.False(t, forgotten(wire.Uint(nil, 2, applied+1)), "this node may not have the record yet")
	})
}
