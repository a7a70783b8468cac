// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/etcdsnapshot"
)

func TestSnapshotHasChecksumAndSize(t *testing.T) {
	n := open(t)
	fill(t, n, 1000, true)
	s, err := etcdsnapshot.New(t.Context(), contents(t, n))
	require.NoError(t, err)
	b, err := io.ReadAll(s)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.EqualValues(t, len(b), s.Size())
	require.Equal(t, sha256.Size, len(b)%512, "etcd's client recognizes the checksum by that")
	sum := sha256.Sum256(b[:len(b)-sha256.Size])
	require.Equal(t, sum[:], b[len(b)-sha256.Size:])
	db, err := bolt.Open(file(t, b), 0o600, &bolt.Options{ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			require.NoError(t, err)
		}
		return nil
	}))
	require.NoError(t, db.Close())
}

func TestEqualContentsMakeEqualSnapshots(t *testing.T) {
	n := open(t)
	fill(t, n, 1000, true)
	addUsers(t, n)
	c := contents(t, n)
	var a, b bytes.Buffer
	require.NoError(t, etcdsnapshot.Write(t.Context(), &a, c))
	again, err := etcdsnapshot.Read(t.Context(), file(t, a.Bytes()))
	require.NoError(t, err)
	require.NoError(t, etcdsnapshot.Write(t.Context(), &b, again))
	require.Equal(t, sha256.Sum256(a.Bytes()), sha256.Sum256(b.Bytes()))
}

func TestWriteLeavesNoTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	n := open(t)
	fill(t, n, 10, false)
	c := contents(t, n)
	require.NoError(t, etcdsnapshot.Write(t.Context(), io.Discard, c))
	broken := errors.New("broken")
	require.ErrorIs(t, etcdsnapshot.Write(t.Context(), failing{broken}, c), broken)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, etcdsnapshot.Write(ctx, io.Discard, c), context.Canceled)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	t.Setenv("TMPDIR", dir+"/none")
	_, err = etcdsnapshot.New(t.Context(), c)
	require.ErrorIs(t, err, os.ErrNotExist)
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// The data of a node is moved to an etcd, or to another cluster.
func Example() {
	ctx := context.Background()
	node, err := coterie.Open(ctx, coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	defer node.Close()
	if _, err := node.Put(ctx, "k", "v"); err != nil {
		panic(err)
	}
	contents, err := node.Contents(ctx)
	if err != nil {
		panic(err)
	}
	file, err := os.CreateTemp("", "*.db")
	if err != nil {
		panic(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := etcdsnapshot.Write(ctx, file, contents); err != nil {
		panic(err)
	}
	// Now etcdutl snapshot restore, or etcdsnapshot.Restore, accepts the file.
	again, err := etcdsnapshot.Read(ctx, file.Name())
	if err != nil {
		panic(err)
	}
	for kv := range again.Versions() {
		fmt.Println(kv.Key, kv.Value, kv.ModRevision)
	}
	// Output: k v 2
}
