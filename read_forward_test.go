// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A node that cannot write its log applies nothing. Its linearizable reads still see the writes of other nodes.
func TestReadsWorkWithoutWritableLog(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		old := put(t, leader, "k", "old").Revision
		c.WaitRevision(old)
		c.RefuseDisk(c.Index(n), syscall.ENOSPC)
		put(t, leader, "k", "new")
		put(t, leader, "l", "new")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for range 2 { // the first read finds that the disk stays full, the second asks another node at once
			begin := time.Now()
			r, err := n.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, "new", r.KVs[0].Value)
			require.Equal(t, n.ID(), r.MemberID)
			require.Greater(t, r.Revision, old)
			require.Less(t, time.Since(begin), 3*time.Second)
		}
		require.Equal(t, "old", local(t, n, "k"), "the write was not applied here")
		begin := time.Now()
		all, err := n.Get(ctx, "", coterie.WithPrefix(), coterie.WithKeysOnly())
		require.NoError(t, err)
		require.Len(t, all.KVs, 2)
		counted, err := n.Get(ctx, "", coterie.WithPrefix(), coterie.WithCountOnly())
		require.NoError(t, err)
		require.EqualValues(t, 2, counted.Count)
		_, err = n.Get(ctx, "k", coterie.WithRevision(all.Revision+1))
		require.ErrorIs(t, err, coterie.ErrFutureRevision)
		txn, err := n.Txn(ctx).If(coterie.Compare(coterie.Value("k"), "=", "new")).Then(coterie.OpGet("l")).Commit()
		require.NoError(t, err)
		require.True(t, txn.Succeeded)
		require.Equal(t, "new", txn.Responses[0].Get.KVs[0].Value)
		require.Less(t, time.Since(begin), time.Second, "at once")
		_, err = n.Put(ctx, "k", "newer")
		require.ErrorIs(t, err, coterie.ErrNoSpace)
		c.Heal()
		require.Equal(t, "new", get(t, n, "k").KVs[0].Value)
		sameState(t, c)
	})
}
