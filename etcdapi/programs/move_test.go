// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
)

// A signal makes etcd write everything that it has applied to its database.
func TestMoveFromDirectoryOfStoppedEtcd(t *testing.T) {
	s := startEtcd(t, filepath.Join(t.TempDir(), "data"))
	fill(t, s.Client, true)
	h, err := s.HashKV(t.Context(), s.client, 0)
	require.NoError(t, err)
	before := dumpOf(t, s.Client, h.CompactRevision)
	_, err = etcdsnapshot.Read(t.Context(), s.dir)
	require.ErrorIs(t, err, coterie.ErrDirInUse)
	s.stop(t)
	c := etcdapi.NewClient(moved(t, s.dir))
	defer c.Close()
	requireEqual(t, before, dumpOf(t, c, h.CompactRevision))
}

// A killed etcd may have acknowledged writes that are only in its log. Its directory is refused, until etcd has started and
// stopped once more.
func TestKilledEtcdLosesNoAcknowledgedWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for attempt := 1; ; attempt++ {
		s := startEtcd(t, dir)
		r, err := s.Put(t.Context(), fmt.Sprint("key", attempt), "acknowledged")
		require.NoError(t, err)
		s.kill(t)
		c, err := etcdsnapshot.Read(t.Context(), dir)
		if err == nil { // etcd had written its database, which it does every 100 ms
			require.Equal(t, r.Header.Revision, c.Revision())
			continue
		}
		require.ErrorIs(t, err, etcdsnapshot.ErrUnapplied)
		again := startEtcd(t, dir)
		again.stop(t)
		c, err = etcdsnapshot.Read(t.Context(), dir)
		require.NoError(t, err)
		require.Equal(t, r.Header.Revision, c.Revision())
		return
	}
}
