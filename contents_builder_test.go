// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func builder(t *testing.T, revision, compacted int64) *coterie.ContentsBuilder {
	t.Helper()
	b, err := coterie.NewContentsBuilder(revision, compacted)
	require.NoError(t, err)
	return b
}

func TestEmptyContentsAreBuilt(t *testing.T) {
	c, err := builder(t, 1, -1).Contents()
	require.NoError(t, err)
	require.EqualValues(t, 1, c.Revision())
	require.Empty(t, collect(c.Versions()))
}

// A store of another program may have kept none of the changes of its compact revision.
func TestCompactRevisionMayHaveNoChanges(t *testing.T) {
	for name, revision := range map[string]int64{"the newest": 9, "another": 10} {
		t.Run(name, func(t *testing.T) {
			b := builder(t, revision, 9)
			require.NoError(t, b.AddVersion(coterie.KeyValue{Key: "k", Value: "v", CreateRevision: 3, ModRevision: 4, Version: 2}))
			if revision == 10 {
				require.NoError(t, b.AddVersion(coterie.KeyValue{Key: "k", ModRevision: 10}))
			}
			c, err := b.Contents()
			require.NoError(t, err)
			founder := sites(1)[0]
			var backup bytes.Buffer
			require.NoError(t, c.WriteBackup(t.Context(), &backup))
			require.NoError(t, founder.restore(t, backup.Bytes()))
			n := founder.open(t)
			ready(t, n)
			require.EqualValues(t, 2, get(t, n, "k", coterie.WithRevision(9)).KVs[0].Version)
			put(t, n, "k", "w")
			for r, err := range n.Watch(t.Context(), "k", coterie.WithRevision(9)) {
				require.NoError(t, err)
				require.Equal(t, int64(min(revision+1, 10)), r.Events[0].KV.ModRevision)
				break
			}
			_, err = n.Compact(t.Context(), revision+1)
			require.NoError(t, err)
		})
	}
}

func TestContentsThatNoStoreHasAreRejected(t *testing.T) {
	kv := coterie.KeyValue{Key: "k", Value: "v", CreateRevision: 2, ModRevision: 2, Version: 1}
	at := func(rev int64) coterie.KeyValue { kv := kv; kv.CreateRevision, kv.ModRevision = rev, rev; return kv }
	leased := kv
	leased.Lease = 7
	for name, versions := range map[string][]coterie.KeyValue{
		"no key":              {{CreateRevision: 2, ModRevision: 2, Version: 1}},
		"a missing revision":  {at(3)},
		"a future revision":   {kv, at(4)},
		"too few revisions":   {kv},
		"deletes nothing":     {kv, {Key: "other", ModRevision: 3}},
		"the same version":    {kv, {Key: "k", CreateRevision: 2, ModRevision: 3, Version: 1}},
		"created afterwards":  {kv, {Key: "j", CreateRevision: 4, ModRevision: 3, Version: 1}},
		"a lease that is not": {leased, {Key: "j", CreateRevision: 3, ModRevision: 3, Version: 1}},
	} {
		b := builder(t, 3, -1)
		var err error
		for _, kv := range versions {
			if err == nil {
				err = b.AddVersion(kv)
			}
		}
		if err == nil {
			_, err = b.Contents()
		}
		require.ErrorIs(t, err, coterie.ErrInvalidOption, name)
	}
	for _, revisions := range [][2]int64{{0, -1}, {1, 2}, {1, -2}} {
		_, err := coterie.NewContentsBuilder(revisions[0], revisions[1])
		require.ErrorIs(t, err, coterie.ErrInvalidOption)
	}
	b := builder(t, 1, -1)
	require.ErrorIs(t, b.AddLease(coterie.Lease{TTL: time.Minute}), coterie.ErrInvalidOption)
	require.ErrorIs(t, b.AddLease(coterie.Lease{ID: 1, TTL: time.Millisecond}), coterie.ErrTTLRange)
	require.NoError(t, b.AddLease(coterie.Lease{ID: 1, TTL: time.Minute}))
	require.ErrorIs(t, b.AddLease(coterie.Lease{ID: 1, TTL: time.Minute}), coterie.ErrInvalidOption)
	for name, a := range map[string]coterie.AuthContents{
		"no revision":     {},
		"enabled":         {Revision: 2, Enabled: true},
		"unordered users": {Revision: 2, Users: []coterie.UserContents{{Name: "b"}, {Name: "a"}}},
		"no such role":    {Revision: 2, Users: []coterie.UserContents{{Name: "a", Roles: []string{"r"}}}},
		"no such access":  {Revision: 2, Roles: []coterie.RoleContents{{Name: "r", Permissions: []coterie.Permission{{Type: 3, Key: "k"}}}}},
	} {
		require.ErrorIs(t, builder(t, 1, -1).SetAuth(a), coterie.ErrInvalidOption, name)
	}
}

func TestUsersAtRevision1AreKept(t *testing.T) {
	b := builder(t, 1, -1)
	users := []coterie.UserContents{{Name: "alice", PasswordHash: []byte("h"), Roles: []string{}}}
	require.NoError(t, b.SetAuth(coterie.AuthContents{Revision: 1, Users: users}))
	c, err := b.Contents()
	require.NoError(t, err)
	var backup bytes.Buffer
	require.NoError(t, c.WriteBackup(t.Context(), &backup))
	restored, err := coterie.ReadBackup(t.Context(), &backup)
	require.NoError(t, err)
	require.Equal(t, users, restored.Auth().Users)
}
