// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/state"
)

// A leader of a version without metadata records members without it. The node notices that, and is put on record
// again, together with all others.
func TestRecordOfEarlierVersionIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := Open(t.Context(), Config{InMemory: true, Metadata: map[string]string{"zone": "z"}})
		require.NoError(t, err)
		defer n.Close()
		require.NoError(t, n.Ready(t.Context()))
		time.Sleep(2 * n.cfg.ElectionTimeout)
		before, _ := n.views.Load().Members.Get(uint64(n.id))
		require.Equal(t, n.joiner.start, before.Start)

		index := n.views.Load().Index
		n.supervisor.submit(command.OfCluster(command.Command{Enroll: &command.Enroll{
			ID: before.ID, Name: before.Name, Addr: before.Addr, Incarnation: before.Incarnation, Voter: true, Run: before.Run,
			Term: n.lead.Now().Term,
		}}))
		v, err := n.views.Await(t.Context(), func(v *state.Summary) bool { return v.Index > index })
		require.NoError(t, err)
		m, _ := v.Members.Get(uint64(n.id))
		require.Zero(t, m.Start)
		require.Equal(t, before.Metadata, m.Metadata)
		require.False(t, n.joiner.onRecord())

		time.Sleep(4 * n.cfg.ElectionTimeout)
		after, _ := n.views.Load().Members.Get(uint64(n.id))
		require.Equal(t, before, after)
		index = n.views.Load().Index
		time.Sleep(time.Minute)
		require.Equal(t, index, n.views.Load().Index, "nothing more is recorded")
	})
}
