// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestViewsAreMadeForReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := Open(t.Context(), Config{InMemory: true})
		require.NoError(t, err)
		defer n.Close()
		synctest.Wait() // until the node is on record: the record is a batch of the log too
		put := func(times int) (rev int64) {
			for i := range times {
				r, err := n.Put(t.Context(), "k", strconv.Itoa(i))
				require.NoError(t, err)
				rev = r.Revision
			}
			return rev
		}
		for range 2 {
			require.Equal(t, put(viewsAhead+1), n.Status().Revision)
			require.Nil(t, n.views.current.Load(), "writes alone need no view, and keep none")
			for _, opt := range []GetOption{WithSerializable(), WithWaitRevision(1)} {
				r, err := n.Get(t.Context(), "k", opt)
				require.NoError(t, err)
				require.Equal(t, strconv.Itoa(viewsAhead), r.KVs[0].Value)
			}
			rev := put(viewsAhead)
			require.Equal(t, rev, n.views.current.Load().KV.Revision(), "the next batches get a view at once")
		}
	})
}
