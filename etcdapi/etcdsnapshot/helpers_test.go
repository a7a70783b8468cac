// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot_test

import (
	"bytes"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
)

// open opens a node in memory until the end of the test.
func open(t testing.TB) *coterie.Node {
	t.Helper()
	n, err := coterie.Open(t.Context(), coterie.Config{
		InMemory: true, Retention: coterie.Retention{Age: -1, Revisions: -1, Bytes: -1}, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	require.NoError(t, n.Ready(t.Context()))
	return n
}

func contents(t testing.TB, n *coterie.Node) *coterie.Contents {
	t.Helper()
	c, err := n.Contents(t.Context())
	require.NoError(t, err)
	return c
}

// fill writes random keys with leases, deletions and transactions, and compacts.
func fill(t testing.TB, n *coterie.Node, writes int, compact bool) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	for id := range coterie.LeaseID(5) {
		_, err := n.Grant(t.Context(), time.Duration(id+1)*time.Minute+time.Duration(id)*time.Millisecond, coterie.WithGrantID(id+1))
		require.NoError(t, err)
	}
	key := func() string { return fmt.Sprintf("k%d", r.IntN(writes/4+2)) }
	put := func() coterie.Op {
		opts := []coterie.PutOption{}
		if r.IntN(4) == 0 {
			opts = append(opts, coterie.WithLease(coterie.LeaseID(1+r.IntN(5))))
		}
		size := r.IntN(20)
		if r.IntN(100) == 0 {
			size = 10_000 // more than a page
		}
		return coterie.OpPut(key(), strings.Repeat("v\x00\xff", size), opts...)
	}
	for i := range writes {
		var err error
		switch r.IntN(6) {
		case 0:
			_, err = n.Delete(t.Context(), key())
		case 1:
			_, err = n.Txn(t.Context()).Then(coterie.OpPut(fmt.Sprint("txn", i), ""), put(), coterie.OpDelete("none")).Commit()
		default:
			_, err = n.Do(t.Context(), put())
		}
		require.NoError(t, err)
	}
	if compact {
		_, err := n.Compact(t.Context(), n.Status().Revision-int64(writes/3))
		require.NoError(t, err)
	}
}

// addUsers adds users and roles, and enables the checks.
func addUsers(t testing.TB, n *coterie.Node) {
	t.Helper()
	ctx := t.Context()
	ok := func(_ any, err error) { t.Helper(); require.NoError(t, err) }
	ok(n.UserAdd(ctx, coterie.Root, coterie.WithPasswordHash([]byte("$2a$10$hash"))))
	ok(n.UserGrantRole(ctx, coterie.Root, coterie.Root))
	ok(n.RoleAdd(ctx, "reader"))
	ok(n.RoleGrantPermission(ctx, "reader", coterie.PermRead, "a", coterie.WithPrefix()))
	ok(n.RoleGrantPermission(ctx, "reader", coterie.PermReadWrite, "z", coterie.WithFromKey()))
	ok(n.RoleGrantPermission(ctx, "reader", coterie.PermWrite, "k"))
	ok(n.UserAdd(ctx, "u"))
	ok(n.UserGrantRole(ctx, "u", "reader"))
	ok(n.AuthEnable(ctx))
}

// write writes a snapshot of contents to a file, and returns its name.
func write(t testing.TB, c *coterie.Contents) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, etcdsnapshot.Write(t.Context(), &b, c))
	return file(t, b.Bytes())
}

// file returns the name of a file with a content.
func file(t testing.TB, b []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "snapshot.db")
	require.NoError(t, os.WriteFile(name, b, 0o600))
	return name
}

// requireEqual checks that two contents are equal, except for parts of seconds of TTLs.
func requireEqual(t testing.TB, want, got *coterie.Contents) {
	t.Helper()
	require.Equal(t, want.Revision(), got.Revision())
	require.Equal(t, want.CompactRevision(), got.CompactRevision())
	var leases []coterie.Lease
	for l := range want.Leases() {
		l.TTL = (l.TTL + time.Second - 1).Truncate(time.Second)
		leases = append(leases, l)
	}
	require.Equal(t, leases, collect(got.Leases()))
	require.Equal(t, collect(want.Versions()), collect(got.Versions()))
	require.Equal(t, want.Auth(), got.Auth())
}

func collect[A any](all iter.Seq[A]) []A { return slices.Collect(all) }
