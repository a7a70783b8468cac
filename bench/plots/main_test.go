// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEachQuantityIsRendered(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "growth.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"measured":"2026-11-27T00:00:00Z","curves":[{
		"name":"keys/put","about":"puts","axis":"keys","quantities":["p99.9 [µs]","operations a second","zero"],
		"series":[
			{"system":"etcd","points":[{"size":1,"values":{"p99.9 [µs]":3,"operations a second":7}}]},
			{"system":"coterie","points":[{"size":1,"values":{"p99.9 [µs]":3,"operations a second":9}},{"size":10,"values":{"p99.9 [µs]":5}}]}
		]}]}`), 0o600))
	require.NoError(t, run([]string{file}, filepath.Join(dir, "plots")))
	for _, name := range []string{"keys-put-p999.svg", "keys-put-operations-a-second.svg"} {
		text, err := os.ReadFile(filepath.Join(dir, "plots", name))
		require.NoError(t, err)
		require.Contains(t, string(text), "coterie")
	}
	require.Error(t, run(nil, dir))
}
