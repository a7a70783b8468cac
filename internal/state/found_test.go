// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestViewSnapshotHasNoCluster(t *testing.T) {
	s := sample(t)
	require.NotZero(t, s.proposers.table.Len())
	s.proposers.floor, s.epoch = 7, 8
	var b bytes.Buffer
	_, err := s.View().Snapshot().WriteTo(&b)
	require.NoError(t, err)
	got, err := Read(&b)
	require.NoError(t, err)
	require.Zero(t, got.proposers.table.Len())
	require.Zero(t, got.proposers.floor)
	require.Empty(t, got.members)
	require.Zero(t, got.epoch)
	require.NotZero(t, s.epoch)
	require.NotEmpty(t, s.members, "the original state keeps its members")
	s.proposers, s.members, s.epoch = newProposers(), nil, 0
	require.Equal(t, bytesOf(t, s), bytesOf(t, got), "all the rest is equal")
}

func TestRefoundKeepsOnlyData(t *testing.T) {
	s := sample(t)
	s.proposers.floor = 7
	old := s.View()
	founders := Members{{Server: Server{ID: 5, Voter: true}, Name: "n"}}
	s.Refound(1, 1, founders)
	v := s.View()
	require.Equal(t, founders, v.Members)
	require.Zero(t, v.Epoch)
	require.EqualValues(t, 1, v.Index)
	require.EqualValues(t, 1, v.Term)
	require.Zero(t, s.proposers.table.Len())
	require.Zero(t, s.proposers.floor)
	require.Equal(t, old.Hash, v.Hash)
	require.Equal(t, old.KV.Hash(old.KV.Revision()), v.KV.Hash(old.KV.Revision()))
	require.Equal(t, old.Leases.Len(), v.Leases.Len())
	require.NoError(t, v.Check())
}
