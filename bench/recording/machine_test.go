// SPDX-License-Identifier: Apache-2.0

package recording

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThisMachineNamesWhatWasMeasured(t *testing.T) {
	t.Chdir("..") // where the commands run
	m := ThisMachine(t.TempDir())
	for _, module := range []string{
		"github.com/lni/dragonboat/v4", "github.com/nats-io/nats-server/v2", "github.com/nats-io/nats.go",
		"github.com/hashicorp/raft", "github.com/hashicorp/raft-boltdb/v2",
	} {
		require.NotEmpty(t, m.Versions[module], module)
	}
	require.Len(t, m.Versions, 5, "this test has no etcd")
	if runtime.GOOS == "linux" {
		require.NotEmpty(t, m.Kernel)
		require.NotEmpty(t, m.FileSystem)
	}
	file := filepath.Join(t.TempDir(), "growth.json")
	require.NoError(t, Write(file, Growth{Machine: m}))
	g, err := ReadGrowth(file)
	require.NoError(t, err)
	require.Equal(t, Growth{Machine: m}, g)
}

func TestMachineOfAnEarlierFileIsRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "growth.json")
	earlier := `{"measured":"2026-11-27T00:00:00Z","go":"go1.26.8","system":"linux/amd64","cpus":2}`
	require.NoError(t, os.WriteFile(file, []byte(earlier), 0o600))
	g, err := ReadGrowth(file)
	require.NoError(t, err)
	require.Equal(t, 2, g.CPUs)
	text, err := json.Marshal(g.Machine)
	require.NoError(t, err)
	require.JSONEq(t, earlier, string(text), "what is unknown is left out")
}

func TestMachineIsReadFromProc(t *testing.T) {
	require.Equal(t, "AMD EPYC", cpuModel("processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nmodel name\t: other\n"))
	require.Empty(t, cpuModel("processor\t: 0\n"))

	mounts := "/dev/a / ext4 rw 0 0\n/dev/b /no-such xfs rw 0 0\ntmpfs /no-such/data tmpfs rw 0 0\n/dev/c /no-such/data btrfs rw 0 0\n"
	for dir, want := range map[string]string{
		"/": "ext4", "/no-such-dir": "ext4", "/no-such": "xfs", "/no-such/database": "xfs", "/no-such/data/a": "btrfs",
	} {
		require.Equal(t, want, fileSystem(mounts, dir), dir)
	}
	require.Empty(t, fileSystem("", "/"))
}

func TestOnlyDirectRequirementsHaveVersions(t *testing.T) {
	got := map[string]string{}
	addRequired(got, `module github.com/coterie-kv/coterie/bench/rivals/a

go 1.26.0

replace github.com/coterie-kv/coterie/bench/rivals => ../

require github.com/coterie-kv/coterie/bench/rivals v0.0.0

require example.com/alone v1.0.0

require (
	example.com/listed/v4 v4.0.0-20240618143154-6a1623140f27
	example.com/indirect v1.2.0 // indirect
)
`)
	require.Equal(t, map[string]string{
		"example.com/alone": "v1.0.0", "example.com/listed/v4": "v4.0.0-20240618143154-6a1623140f27",
	}, got)
}
