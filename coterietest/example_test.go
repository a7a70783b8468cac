// SPDX-License-Identifier: Apache-2.0

package coterietest_test

import (
	"testing"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A lease of a minute expires on three nodes, in a test that takes milliseconds: time is virtual
// within Run, and passes at once when everything waits for it.
func TestLeaseExpiresInVirtualTime(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx, n := t.Context(), c.Follower()
		lease, err := n.Grant(ctx, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Put(ctx, "k", "v", coterie.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
		count := func() int64 {
			got, err := n.Get(ctx, "k")
			if err != nil {
				t.Fatal(err)
			}
			return got.Count
		}
		time.Sleep(59 * time.Second)
		if count() != 1 {
			t.Fatal("the lease expired too early")
		}
		time.Sleep(2 * time.Second)
		if count() != 0 {
			t.Fatal("the lease did not expire")
		}
	})
}
