// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/expiry"
	"github.com/coterie-kv/coterie/internal/leader"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/rpc"
)

// A node of an earlier version asks for one lease, and does not write a 0 after its ID.
func TestSingleLeaseRequestIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := Open(t.Context(), Config{InMemory: true})
		require.NoError(t, err)
		defer n.Close()
		l, err := n.Grant(t.Context(), time.Minute)
		require.NoError(t, err)
		single := func(id LeaseID) []byte { return binary.AppendUvarint(nil, uint64(id)) }

		ttl, err := uvarint(n.leases.answerRenew(t.Context(), single(l.ID)))
		require.NoError(t, err)
		require.Equal(t, time.Minute, time.Duration(ttl))
		b, err := n.leases.answerTimeToLive(t.Context(), single(l.ID))
		require.NoError(t, err)
		r, err := expiry.ReadLifetimes(b, 1)
		require.NoError(t, err)
		require.Equal(t, time.Minute, r[0].TTL)
		for _, req := range [][]byte{single(l.ID + 1), nil, {0xff}} {
			_, err = n.leases.answerRenew(t.Context(), req)
			require.ErrorIs(t, err, ErrLeaseNotFound)
			_, err = n.leases.answerTimeToLive(t.Context(), req)
			require.ErrorIs(t, err, ErrLeaseNotFound)
		}
		many := expiry.Request([]int64{int64(l.ID), int64(l.ID) + 1})
		b, err = n.leases.answerRenew(t.Context(), many)
		require.NoError(t, err)
		require.Equal(t, append(binary.AppendUvarint(nil, uint64(time.Minute)), 0), b, "the second lease does not exist")
	})
}

// A leader of an earlier version reads only the first ID of a request.
func TestLeaderMayAnswerOneLeaseACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New()
		n, err := Open(t.Context(), Config{InMemory: true, Network: network.Host("n")})
		require.NoError(t, err)
		defer n.Close()
		require.NoError(t, n.Ready(t.Context())) // afterwards it pings nobody
		l, err := network.Host("old").Listen("old:1")
		require.NoError(t, err)
		leases := map[LeaseID]time.Duration{3: 3 * time.Second, 5: 5 * time.Second}
		var calls atomic.Int32
		identity := n.transport.hello()
		identity.Member = 42
		old := rpc.Serve(l, rpc.ServerConfig{
			Party: rpc.Always(identity),
			Call: func(_ context.Context, _ rpc.Identity, method byte, req []byte) ([]byte, error) {
				calls.Add(1)
				id, _ := binary.Uvarint(req)
				ttl := leases[LeaseID(id)]
				switch {
				case ttl == 0:
					return nil, remoteError(ErrLeaseNotFound)
				case method == methodRenew:
					return binary.AppendUvarint(nil, uint64(ttl)), nil
				}
				return expiry.AppendLifetimes(nil, []expiry.Lifetime{{TTL: ttl, Left: ttl / 2, Index: 7}}, true), nil
			},
		})
		defer old.Close()
		n.peers.addresses.Learn(42, "old:1")

		renew := func(ctx context.Context, ids []int64) ([]expiry.Renewal, error) {
			return n.leases.callRenew(ctx, 42, ids)
		}
		look := func(ctx context.Context, ids []int64) ([]expiry.Lifetime, error) {
			return n.leases.callTimeToLive(ctx, 42, ids)
		}
		renewals := leader.NewRounds(host{n.life, n}, renew, nil)
		lifetimes := leader.NewRounds(host{n.life, n}, look, nil)
		for id := range LeaseID(6) {
			go func() {
				r, err := renewals.Ask(t.Context(), int64(id+1))
				require.NoError(t, err)
				require.Equal(t, leases[id+1], time.Duration(r))
				left, err := lifetimes.Ask(t.Context(), int64(id+1))
				require.NoError(t, err)
				require.Equal(t, leases[id+1], left.TTL)
				require.Equal(t, leases[id+1]/2, left.Left)
			}()
		}
		synctest.Wait()
		require.EqualValues(t, 12, calls.Load())
	})
}
