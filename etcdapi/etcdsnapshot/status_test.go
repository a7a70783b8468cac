// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
)

func TestStatusDescribesSnapshot(t *testing.T) {
	n := open(t)
	fill(t, n, 100, true)
	addUsers(t, n)
	name := write(t, contents(t, n))
	s, err := etcdsnapshot.ReadStatus(t.Context(), name)
	require.NoError(t, err)
	require.Equal(t, n.Status().Revision, s.Revision)
	require.Equal(t, n.Status().Keys, s.TotalKey)
	require.Equal(t, etcdsnapshot.StorageVersion, s.Version)
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.EqualValues(t, len(b), s.TotalSize+etcdsnapshot.ChecksumSize)

	_, err = n.Put(t.Context(), "k", "other")
	require.NoError(t, err)
	other, err := etcdsnapshot.ReadStatus(t.Context(), write(t, contents(t, n)))
	require.NoError(t, err)
	require.NotEqual(t, s.Hash, other.Hash)
	damaged := bytes.Clone(b)
	damaged[5000] ^= 1
	_, err = etcdsnapshot.ReadStatus(t.Context(), file(t, damaged))
	require.ErrorIs(t, err, coterie.ErrCorrupt)
}
