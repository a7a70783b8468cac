// SPDX-License-Identifier: Apache-2.0

package sharedconfig

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func example() (stored, []string) {
	full, empty, binary := `{"Rate":2}`, "", "\xff\x00<&>"
	return stored{cluster: 7, revision: 9, documents: []*string{nil, &full, &empty, &binary}}, []string{"a", "b", "c", "d"}
}

func TestFileRoundTrip(t *testing.T) {
	s, keys := example()
	b, err := seal(s, keys)
	require.NoError(t, err)
	found, ok := unseal(b, keys)
	require.True(t, ok)
	require.Equal(t, s, found)
	_, ok = unseal(b, []string{"a", "b", "c", "other"})
	require.False(t, ok)
}

func TestFlippedBitOfFileIsDetected(t *testing.T) {
	s, keys := example()
	b, err := seal(s, keys)
	require.NoError(t, err)
	for bit := range 8 * len(b) {
		damaged := slices.Clone(b)
		damaged[bit/8] ^= 1 << (bit % 8)
		if found, ok := unseal(damaged, keys); ok {
			require.Equal(t, s, found, "bit %d", bit)
		}
	}
	for n := range b {
		_, ok := unseal(b[:n], keys)
		require.False(t, ok, "cut off at %d", n)
	}
}

// The temporary file that a crash has left does not block the next write, and is removed.
func TestLeftoverTemporaryFileIsReplaced(t *testing.T) {
	name := filepath.Join(t.TempDir(), "limits.json")
	require.NoError(t, os.WriteFile(name+".tmp", []byte("much more than what is written now"), 0o644))
	require.NoError(t, replace(name, []byte("new")))
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, "new", string(b))
	is, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), is.Mode())
	left, err := os.ReadDir(filepath.Dir(name))
	require.NoError(t, err)
	require.Len(t, left, 1)
}
