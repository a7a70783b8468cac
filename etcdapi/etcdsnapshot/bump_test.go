// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
)

func TestBumpKeepsTheNewestState(t *testing.T) {
	n := open(t)
	fill(t, n, 100, false)
	addUsers(t, n)
	now := contents(t, n)
	got, err := etcdsnapshot.Read(t.Context(), write(t, now), etcdsnapshot.WithBumpRevision(1000))
	require.NoError(t, err)
	require.Equal(t, now.Revision()+1000, got.Revision())
	require.Equal(t, got.Revision(), got.CompactRevision())
	_, err = n.Compact(t.Context(), now.Revision())
	require.NoError(t, err)
	want := contents(t, n)
	require.ElementsMatch(t, collect(want.Versions()), collect(got.Versions()))
	require.Equal(t, want.Auth(), got.Auth())
	require.Len(t, collect(got.Leases()), len(collect(want.Leases())))
}

func TestBumpLeavesRevisionsForChanges(t *testing.T) {
	n := open(t)
	_, err := n.Put(t.Context(), "k", "v")
	require.NoError(t, err)
	_, err = etcdsnapshot.Read(t.Context(), write(t, contents(t, n)), etcdsnapshot.WithBumpRevision(math.MaxUint64))
	require.ErrorIs(t, err, coterie.ErrInvalidOption)
	_, err = etcdsnapshot.Read(t.Context(), write(t, contents(t, n)), etcdsnapshot.WithBumpRevision(1<<60))
	require.NoError(t, err)
}
