// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// stored returns a node with some of everything that contents have, and compacted history.
func stored(t *testing.T) *coterie.Node {
	t.Helper()
	n := sites(1)[0].open(t)
	ready(t, n)
	_, err := n.Grant(t.Context(), time.Minute, coterie.WithGrantID(7))
	require.NoError(t, err)
	put(t, n, "base", "1")      // 2
	put(t, n, "superseded", "") // 3
	put(t, n, "superseded", "again")
	put(t, n, "gone", "v")
	_, err = n.Delete(t.Context(), "gone") // 6, the compact revision
	require.NoError(t, err)
	_, err = n.Txn(t.Context()).Then(
		coterie.OpPut("z", "1"), coterie.OpPut("a", "2", coterie.WithLease(7)), coterie.OpDelete("base"),
	).Commit()
	require.NoError(t, err)
	put(t, n, "a\x00", "\xff")
	_, err = n.Compact(t.Context(), 6)
	require.NoError(t, err)
	a := administrator{t, n}
	a.user("u", coterie.Permission{Type: coterie.PermWrite, Key: "a", RangeEnd: "b"}, coterie.Permission{Key: "k"})
	a.enable()
	return n
}

func contents(t *testing.T, n *coterie.Node) *coterie.Contents {
	t.Helper()
	c, err := n.Contents(t.Context())
	require.NoError(t, err)
	return c
}

// rebuilt returns the contents that a builder makes of others.
func rebuilt(t *testing.T, c *coterie.Contents) *coterie.Contents {
	t.Helper()
	b, err := coterie.NewContentsBuilder(c.Revision(), c.CompactRevision())
	require.NoError(t, err)
	for l := range c.Leases() {
		require.NoError(t, b.AddLease(l))
	}
	for kv := range c.Versions() {
		require.NoError(t, b.AddVersion(kv))
	}
	require.NoError(t, b.SetAuth(c.Auth()))
	again, err := b.Contents()
	require.NoError(t, err)
	return again
}

// requireEqualContents checks that two contents have the same in them.
func requireEqualContents(t *testing.T, want, got *coterie.Contents) {
	t.Helper()
	require.Equal(t, want.Revision(), got.Revision())
	require.Equal(t, want.CompactRevision(), got.CompactRevision())
	require.Equal(t, collect(want.Leases()), collect(got.Leases()))
	require.Equal(t, collect(want.Versions()), collect(got.Versions()))
	require.Equal(t, want.Auth(), got.Auth())
}

func collect[A any](all func(func(A) bool)) (list []A) {
	for a := range all {
		list = append(list, a)
	}
	return list
}

func TestContentsHaveEveryVersion(t *testing.T) {
	c := contents(t, stored(t))
	require.EqualValues(t, 8, c.Revision())
	require.EqualValues(t, 6, c.CompactRevision())
	require.Equal(t, []coterie.Lease{{ID: 7, TTL: time.Minute}}, collect(c.Leases()))
	want := []coterie.KeyValue{
		{Key: "base", Value: "1", CreateRevision: 2, ModRevision: 2, Version: 1},
		{Key: "superseded", Value: "again", CreateRevision: 3, ModRevision: 4, Version: 2},
		{Key: "gone", ModRevision: 6},
		{Key: "z", Value: "1", CreateRevision: 7, ModRevision: 7, Version: 1},
		{Key: "a", Value: "2", CreateRevision: 7, ModRevision: 7, Version: 1, Lease: 7},
		{Key: "base", ModRevision: 7},
		{Key: "a\x00", Value: "\xff", CreateRevision: 8, ModRevision: 8, Version: 1},
	}
	require.Equal(t, want, collect(c.Versions()))
	for n := range want {
		var some []coterie.KeyValue
		for kv := range c.Versions() {
			some = append(some, kv)
			if len(some) > n {
				break
			}
		}
		require.Equal(t, want[:n+1], some)
	}
	auth := c.Auth()
	require.True(t, auth.Enabled)
	require.Equal(t, []coterie.UserContents{
		{Name: "root", PasswordHash: []byte{}, NoPassword: true, Roles: []string{"root"}},
		{Name: "u", PasswordHash: []byte("hash of u"), Roles: []string{"u"}},
	}, auth.Users)
	require.Equal(t, []coterie.RoleContents{{Name: "u", Permissions: []coterie.Permission{
		{Type: coterie.PermWrite, Key: "a", RangeEnd: "b"}, {Key: "k"},
	}}}, auth.Roles)
}

func TestContentsDoNotChange(t *testing.T) {
	n := stored(t)
	c := contents(t, n)
	before := collect(c.Versions())
	put(t, n, "later", "v")
	_, err := n.Compact(t.Context(), 9)
	require.NoError(t, err)
	require.Equal(t, before, collect(c.Versions()))
}

func TestBuiltContentsAreRestored(t *testing.T) {
	n := stored(t)
	c := rebuilt(t, contents(t, n))
	requireEqualContents(t, contents(t, n), c)
	var b, again bytes.Buffer
	require.NoError(t, c.WriteBackup(t.Context(), &b))
	require.NoError(t, rebuilt(t, c).WriteBackup(t.Context(), &again))
	require.Equal(t, b.Bytes(), again.Bytes(), "equal contents make equal backups")

	founder := sites(1)[0]
	require.NoError(t, founder.restore(t, b.Bytes()))
	restored := founder.open(t)
	ready(t, restored)
	requireEqualContents(t, contents(t, n), contents(t, restored))
	for _, rev := range []int64{6, 7, 8} {
		require.Equal(t, hash(t, n, rev), hash(t, restored, rev))
	}
	r, err := restored.Put(t.Context(), "a", "next")
	require.NoError(t, err)
	require.EqualValues(t, 9, r.Revision)
	require.EqualValues(t, 2, get(t, restored, "a").KVs[0].Version)
	_, err = restored.Revoke(t.Context(), 7)
	require.NoError(t, err)
}

func hash(t *testing.T, n *coterie.Node, rev int64) uint64 {
	t.Helper()
	h, err := n.Hash(t.Context(), rev)
	require.NoError(t, err)
	return h.Hash
}

func TestReadBackup(t *testing.T) {
	n := stored(t)
	var b bytes.Buffer
	_, err := n.Backup(t.Context(), &b)
	require.NoError(t, err)
	c, err := coterie.ReadBackup(t.Context(), bytes.NewReader(b.Bytes()))
	require.NoError(t, err)
	requireEqualContents(t, contents(t, n), c)

	_, err = coterie.ReadBackup(t.Context(), bytes.NewReader(b.Bytes()[:b.Len()-1]))
	require.ErrorIs(t, err, coterie.ErrCorrupt)
	broken := errors.New("broken")
	_, err = coterie.ReadBackup(t.Context(), iotest.ErrReader(broken))
	require.ErrorIs(t, err, broken)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = coterie.ReadBackup(ctx, bytes.NewReader(b.Bytes()))
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, c.WriteBackup(ctx, &b), context.Canceled)
	_, err = n.Contents(ctx)
	require.ErrorIs(t, err, context.Canceled)
}
