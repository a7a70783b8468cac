// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/vfs"
)

// A leader drops an entry that it could not append for an election timeout, and keeps the lead. At the quota, no
// further write causes another check of the history's bounds.
func TestDroppedCompactionIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewForgetful()
		n, err := Open(vfs.With(t.Context(), disk.Mount()), Config{Dir: "/data", QuotaBytes: 1000})
		require.NoError(t, err)
		defer n.Close()
		_, err = n.Put(t.Context(), "k", string(make([]byte, 2000)))
		require.NoError(t, err)
		_, err = n.Put(t.Context(), "k", "v")
		require.ErrorIs(t, err, ErrNoSpace)
		time.Sleep(time.Second)

		disk.Delay(100 * time.Millisecond)
		deleted := make(chan error)
		go func() {
			_, err := n.Delete(context.Background(), "k")
			deleted <- err
		}()
		time.Sleep(50 * time.Millisecond) // the deletion is appended, but not applied
		n.supervisor.turn <- struct{}{}   // no other entry is appended
		require.NoError(t, <-deleted)
		time.Sleep(2 * n.cfg.ElectionTimeout)
		<-n.supervisor.turn
		require.Negative(t, n.views.Load().KV.CompactRevision())
		time.Sleep(10 * n.cfg.ElectionTimeout)
		_, err = n.Put(t.Context(), "k", "v")
		require.NoError(t, err, "deleting lifts the quota")
	})
}

// A bounded history does not cause a compaction after every write.
func TestCompactionsAreFewerThanWrites(t *testing.T) {
	for name, bound := range map[string]Retention{"revisions": {Revisions: 100}, "bytes": {Bytes: 10_000}} {
		synctest.Test(t, func(t *testing.T) {
			var r ExpvarMetrics
			n, err := Open(t.Context(), Config{InMemory: true, Retention: bound, Metrics: &r})
			require.NoError(t, err)
			defer n.Close()
			require.NoError(t, n.Ready(t.Context()))
			for range 1000 {
				_, err := n.Put(t.Context(), "k", "a value")
				require.NoError(t, err)
			}
			synctest.Wait()
			require.Positive(t, n.views.Load().KV.CompactRevision())
			require.Less(t, r.Value(MetricEntriesApplied), 1200.0, name)
		})
	}
}
