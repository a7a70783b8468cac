// SPDX-License-Identifier: Apache-2.0

// Package golden has the golden files of tests: examples of a format, which later versions must still read.
package golden

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// File returns the contents of a golden file in testdata. If update is true, File first writes got to it.
func File(t testing.TB, update bool, name string, got []byte) []byte {
	t.Helper()
	name = filepath.Join("testdata", name)
	if update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(name, got, 0o644))
	}
	want, err := os.ReadFile(name)
	require.NoError(t, err)
	return want
}
