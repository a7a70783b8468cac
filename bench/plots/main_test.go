// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/bench/recording"
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

func TestFooterNamesWhatIsKnown(t *testing.T) {
	m := recording.Machine{
		Measured: time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC), Go: "go1.26.8", System: "linux/amd64", CPUs: 2,
	}
	require.Equal(t, "2026-11-27, go1.26.8\nlinux/amd64, 2 CPUs", footer(m))
	m.CPU, m.Commit, m.Versions = "AMD EPYC", "0123456789ab", map[string]string{recording.Etcd: "v3.7.3"}
	require.Equal(t, "2026-11-27, coterie 0123456789ab, etcd v3.7.3, go1.26.8\nlinux/amd64, 2 CPUs (AMD EPYC)", footer(m))
}
