// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// home is the directory of the tests.
const home = "/node"

const smallSegment = 4 << 10

// random returns a source of random numbers and logs its seed.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	a, b := rand.Uint64(), rand.Uint64()
	t.Logf("seed %d, %d", a, b)
	return rand.New(rand.NewPCG(a, b))
}

// often returns n, or less with -short.
func often(n int) int {
	if testing.Short() {
		return (n + 3) / 4
	}
	return n
}

// open opens and loads the data of the directory.
func open(t testing.TB, files vfs.FS, size int64) (*store, storage.Loaded) {
	t.Helper()
	require.NoError(t, files.MkdirAll(home))
	s, err := Format{SegmentSize: size}.Open(files, home)
	require.NoError(t, err)
	found, err := s.Load()
	require.NoError(t, err)
	_, err = s.Vote().Load()
	require.NoError(t, err)
	return s.(*store), found
}

// add appends entries with one write.
func add(t testing.TB, s storage.Log, entries ...*raft.Log) {
	t.Helper()
	_, err := s.Write([]storage.Change{{Kind: storage.Append, Entries: entries}}, 0)
	require.NoError(t, err)
}

// holds checks that a log has exactly these entries.
func holds(t testing.TB, s storage.Log, want ...*raft.Log) {
	t.Helper()
	for _, w := range want {
		got, err := s.Entry(w.Index)
		require.NoError(t, err, "entry %d", w.Index)
		if !got.AppendedAt.IsZero() {
			got.AppendedAt = got.AppendedAt.UTC()
		}
		require.Equal(t, w, got)
		require.NotZero(t, s.Size(w.Index))
	}
	for _, index := range []uint64{want[0].Index - 1, want[len(want)-1].Index + 1} {
		_, err := s.Entry(index)
		require.ErrorIs(t, err, raft.ErrLogNotFound, "entry %d", index)
		require.Zero(t, s.Size(index))
	}
}

// sized returns an entry with this much data.
func sized(index uint64, size int) *raft.Log { return storagetest.Sized(index, 1, size) }

// sealed returns the bytes of a batch at a place.
func sealed(b *batch, at place) []byte {
	parts, _ := b.seal(at)
	return slices.Concat(parts...)
}
