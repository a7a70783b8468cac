// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"log/slog"
	"math"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/membership"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/raftnet"
)

// A vote is for a member ID: two candidates of one term may have the same address one after the other.
func TestRaftAddressesAreMemberIDs(t *testing.T) {
	n, err := Open(t.Context(), Config{InMemory: true})
	require.NoError(t, err)
	require.EqualValues(t, serverID(n.id), n.raft().net.LocalAddr())
	require.NoError(t, n.Close())
}

// A node that joins takes index and term from the leader's reply. Absurd ones would keep it out of every
// election.
func TestAbsurdAdmissionIsRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := Open(t.Context(), Config{InMemory: true, Addr: "a:1", Join: []string{"b:1"}, Network: memnet.New(), Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		before := *n.identity.Load()
		for _, a := range []membership.Admission{{Cluster: 1, Index: 5, Term: math.MaxUint64}, {Cluster: 1, Index: math.MaxUint64, Term: 3}} {
			require.ErrorIs(t, n.identity.confirm(a), raftnet.ErrTerm)
			require.Equal(t, before, *n.identity.Load())
		}
		require.NoError(t, n.identity.confirm(membership.Admission{Cluster: 1, Index: 5, Term: 3}))
		require.EqualValues(t, 5, n.identity.Load().Since)
		require.NoError(t, n.Close())
	})
}
