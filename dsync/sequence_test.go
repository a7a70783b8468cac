// SPDX-License-Identifier: Apache-2.0

package dsync_test

import (
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/dsync"
)

// Keys are unique and in the order of their creation, even if leaders are lost and keys are deleted.
func TestASequenceIsUniqueAndOrdered(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		random := source(t)
		var mu sync.Mutex
		var keys []string
		var wg sync.WaitGroup
		for i := range 6 {
			n := c.Node(i % 3)
			s := dsync.NewSequence(n, "jobs")
			wg.Go(func() {
				last := ""
				for j := range 30 {
					key, err := s.Append(t.Context(), strconv.Itoa(j))
					if err != nil {
						t.Error(err)
						return
					}
					if key <= last {
						t.Errorf("%s after %s", key, last)
					}
					last = key
					mu.Lock()
					keys = append(keys, key)
					mu.Unlock()
					if j%3 == 0 {
						if _, err := n.Delete(t.Context(), key); err != nil {
							t.Error(err)
						}
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		trouble(c, random, &wg)
		slices.Sort(keys)
		require.Len(t, slices.Compact(keys), 180)
		r, err := c.Leader().Get(t.Context(), "jobs/", coterie.WithPrefix())
		require.NoError(t, err)
		require.Len(t, r.KVs, 120)
		require.True(t, slices.IsSortedFunc(r.KVs, func(a, b coterie.KeyValue) int {
			return int(a.CreateRevision - b.CreateRevision)
		}))
	})
}
