// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRemovalsOfMembersAreCounted(t *testing.T) {
	m := start(t)
	members := func(ids ...uint64) {
		var servers []Server
		for _, id := range ids {
			servers = append(servers, Server{ID: id})
		}
		m.Configure(m.View().Index+1, servers)
	}
	counts := func(v *View) (all []uint64) {
		for _, id := range []uint64{1, 2, 3} {
			all = append(all, v.Removals.Of(id))
		}
		return all
	}
	members(1, 2, 3)
	members(1, 3)
	before := m.View()
	require.Equal(t, []uint64{0, 1, 0}, counts(before))
	members(1, 2, 3)
	require.Equal(t, []uint64{0, 1, 0}, counts(m.View()), "the same while it is a member")
	members(2)
	members(1)
	require.Equal(t, []uint64{1, 2, 1}, counts(m.View()))
	require.Equal(t, []uint64{0, 1, 0}, counts(before), "a view does not change")

	var b bytes.Buffer
	_, err := m.Snapshot().WriteTo(&b)
	require.NoError(t, err)
	restored, err := Read(&b)
	require.NoError(t, err)
	require.Equal(t, m.View().Removals, restored.View().Removals)

	restored.Recover(m.View().Index+1, 9, 9, Member{Server: Server{ID: 2}})
	require.Equal(t, []uint64{2, 2, 1}, counts(restored.View()), "a recovery removes the others")
	restored.Refound(9, 9, Members{{Server: Server{ID: 1}}})
	require.Equal(t, []uint64{0, 0, 0}, counts(restored.View()), "a new cluster")
	require.Empty(t, m.View().Snapshot().view.Removals, "a backup")
}

func TestRemovalsOutOfOrderAreRejected(t *testing.T) {
	s := New()
	s.removals = Removals{{2, 1}, {1, 1}}
	var b bytes.Buffer
	_, err := s.Snapshot().WriteTo(&b)
	require.NoError(t, err)
	_, err = Read(&b)
	require.ErrorIs(t, err, errSnapshot)
	require.ErrorContains(t, err, "removal of member 1 out of order")
}
