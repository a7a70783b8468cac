// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/segments"
)

// MayLackAcknowledged follows from the directory's knowledge of its own record.
func TestInspectMayLackAcknowledged(t *testing.T) {
	for _, c := range []struct {
		since, floor, term uint64
		mayLack            bool
	}{
		{0, 0, 0, true},  // it has promised nothing, but an earlier directory may have
		{0, 0, 1, true},  // the same if it has only founded the cluster
		{0, 0, 2, false}, // it took part in an election, so the cluster let it in
		{5, 0, 2, false}, // it is the first directory of its member
		{5, 2, 2, true},  // an earlier directory may have acknowledged entries up to 5, and this one has fewer
	} {
		synctest.Test(t, func(t *testing.T) {
			s := sites(1)[0]
			l, err := raftlog.Open(s.disk.Mount(), s.Dir, segments.Format{}, false)
			require.NoError(t, err)
			require.NoError(t, l.Identify(raftlog.Identity{Cluster: 1, Member: 2, Incarnation: 3, Since: c.since, Floor: c.floor}))
			if c.term > 0 {
				require.NoError(t, l.Stable().SetUint64([]byte("CurrentTerm"), c.term))
			}
			if c.since > 0 && c.floor == 0 {
				require.NoError(t, l.Logs().StoreLogs([]*raft.Log{{Index: 1, Term: 1, Type: raft.LogNoop}}))
			}
			require.NoError(t, l.Close(t.Context()))
			in, err := s.inspect(t)
			require.NoError(t, err)
			require.Equal(t, c.mayLack, in.MayLackAcknowledged, fmt.Sprint(c))
		})
	}
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		i := c.Join(nil)
		awaitVote(t, c.Leader(), "node4")
		c.Stop(i)
		in, err := c.Inspect(i)
		require.NoError(t, err)
		require.False(t, in.MayLackAcknowledged, "it has received everything")
		c.Wipe(0)
		c.Restart(0)
		time.Sleep(time.Minute)
		c.Stop(0)
		in, err = c.Inspect(0)
		require.NoError(t, err)
		require.True(t, in.MayLackAcknowledged, "the cluster refuses it")
	})
}
