// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestOptionsOfRanges uses each option of clientv3 that selects or sorts the key-values of a range.
func TestOptionsOfRanges(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		for _, key := range []string{"k/1", "k/2", "k/3", "k/1", "m"} { // revisions 2 to 6
			_, err := c.Put(t.Context(), key, "value")
			require.NoError(t, err)
		}
		for name, options := range map[string]struct {
			key  string
			opts []clientv3.OpOption
			want []string
		}{
			"WithPrefix":       {"k/", []clientv3.OpOption{clientv3.WithPrefix()}, []string{"k/1", "k/2", "k/3"}},
			"WithRange":        {"k/1", []clientv3.OpOption{clientv3.WithRange("k/3")}, []string{"k/1", "k/2"}},
			"WithFromKey":      {"k/3", []clientv3.OpOption{clientv3.WithFromKey()}, []string{"k/3", "m"}},
			"WithLimit":        {"k/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(2)}, []string{"k/1", "k/2"}},
			"WithRev":          {"k/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(3)}, []string{"k/1", "k/2"}},
			"WithSerializable": {"m", []clientv3.OpOption{clientv3.WithSerializable()}, []string{"m"}},
			"WithMinModRev":    {"k/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMinModRev(4)}, []string{"k/1", "k/3"}},
			"WithMaxModRev":    {"k/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMaxModRev(4)}, []string{"k/2", "k/3"}},
			"WithMinCreateRev": {"k/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMinCreateRev(3)}, []string{"k/2", "k/3"}},
			"WithMaxCreateRev": {"k/", []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithMaxCreateRev(3)}, []string{"k/1", "k/2"}},
			"WithFirstCreate":  {"k/", clientv3.WithFirstCreate(), []string{"k/1"}},
			"WithLastCreate":   {"k/", clientv3.WithLastCreate(), []string{"k/3"}},
			"WithFirstKey":     {"k/", clientv3.WithFirstKey(), []string{"k/1"}},
			"WithLastKey":      {"k/", clientv3.WithLastKey(), []string{"k/3"}},
			"WithFirstRev":     {"k/", clientv3.WithFirstRev(), []string{"k/2"}},
			"WithLastRev":      {"k/", clientv3.WithLastRev(), []string{"k/1"}},
			"WithSort by revision": {"k/", []clientv3.OpOption{
				clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend),
			}, []string{"k/1", "k/3", "k/2"}},
		} {
			r, err := c.Get(t.Context(), options.key, options.opts...)
			require.NoError(t, err, name)
			require.Equal(t, options.want, keysOf(r), name)
		}
		r, err := c.Get(t.Context(), "m", clientv3.WithKeysOnly())
		require.NoError(t, err)
		require.Equal(t, []string{"m"}, keysOf(r))
		require.Empty(t, r.Kvs[0].Value)
		r, err = c.Get(t.Context(), "k/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		require.NoError(t, err)
		require.EqualValues(t, 3, r.Count)
		require.Empty(t, r.Kvs)
	})
}

// TestOptionsOfWrites uses each option of clientv3 for puts, deletions, leases and compactions.
func TestOptionsOfWrites(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		ctx := t.Context()
		lease, err := c.Grant(ctx, 600)
		require.NoError(t, err)
		_, err = c.Put(ctx, "k", "old", clientv3.WithLease(lease.ID))
		require.NoError(t, err)
		p, err := c.Put(ctx, "k", "new", clientv3.WithIgnoreLease(), clientv3.WithPrevKV())
		require.NoError(t, err)
		require.Equal(t, "old", string(p.PrevKv.Value))
		keys, err := c.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
		require.NoError(t, err)
		require.Equal(t, [][]byte{[]byte("k")}, keys.Keys, "the lease was kept")
		_, err = c.Put(ctx, "k", "", clientv3.WithIgnoreValue())
		require.NoError(t, err)
		r, err := c.Get(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, "new", string(r.Kvs[0].Value), "the value was kept")
		require.Zero(t, r.Kvs[0].Lease)
		_, err = c.Compact(ctx, r.Header.Revision, clientv3.WithCompactPhysical())
		require.NoError(t, err)
		d, err := c.Delete(ctx, "k", clientv3.WithPrevKV())
		require.NoError(t, err)
		require.Equal(t, "new", string(d.PrevKvs[0].Value))
	})
}

// TestOptionsOfWatches uses each option of clientv3 that decides which events a watch reports.
func TestOptionsOfWatches(t *testing.T) {
	clients(t, func(t *testing.T, c *clientv3.Client) {
		ctx := clientv3.WithRequireLeader(t.Context())
		created := c.Watch(ctx, "k", clientv3.WithCreatedNotify(), clientv3.WithFragment())
		require.True(t, (<-created).Created)
		puts := c.Watch(ctx, "k", clientv3.WithRev(2), clientv3.WithFilterDelete())
		deletions := c.Watch(ctx, "k", clientv3.WithRev(2), clientv3.WithFilterPut(), clientv3.WithPrevKV())
		_, err := c.Put(ctx, "k", "v")
		require.NoError(t, err)
		_, err = c.Delete(ctx, "k")
		require.NoError(t, err)
		_, err = c.Put(ctx, "k", "again")
		require.NoError(t, err)
		require.Equal(t, "v", string((<-created).Events[0].Kv.Value))
		require.True(t, (<-puts).Events[0].IsCreate())
		require.EqualValues(t, 4, (<-puts).Events[0].Kv.ModRevision, "the deletion is left out")
		only := (<-deletions).Events
		require.Len(t, only, 1)
		require.Equal(t, clientv3.EventTypeDelete, only[0].Type)
		require.Equal(t, "v", string(only[0].PrevKv.Value))
	})
}
