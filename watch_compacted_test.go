// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A follower that comes back applies the missed writes and their compaction in one batch. A watch that can
// no longer read those revisions ends with an error, and leaves out none.
func TestWatchReportsUnseenCompactedRevisions(t *testing.T) {
	for _, key := range []string{"k", ""} { // one key, and all
		coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
			follower, leader := c.Follower(), c.Leader()
			var opts []coterie.WatchOption
			if key == "" {
				opts = append(opts, coterie.WithPrefix())
			}
			compacted := 0
			for range 5 {
				watch := follower.WatchChan(t.Context(), key, opts...)
				time.Sleep(time.Second)
				c.Pause(c.Index(follower))
				first := put(t, leader, "k", "first").Revision
				var last int64
				for i := range 20 {
					last = put(t, leader, "k", fmt.Sprint(i)).Revision
				}
				require.NoError(t, errOf(leader.Compact(t.Context(), last)))
				c.Resume(c.Index(follower))
				end := put(t, leader, "k", "end").Revision
				for want := first; want <= end; want++ {
					r := <-watch
					if r.Err != nil {
						require.ErrorIs(t, r.Err, coterie.ErrCompacted)
						compacted++
						break
					}
					require.Equal(t, want, r.Revision, "none is left out")
				}
				c.WaitRevision(end)
			}
			require.Positive(t, compacted)
		})
	}
}
