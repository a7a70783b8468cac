// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSnapshot(t *testing.T) {
	pairs(t, func(t *testing.T, p *pair) {
		p.same("put", "k", "v")
		p.same("put", "k2", "v")
		p.learn("lease", `^lease (\S+) granted`, "lease", "grant", "60")
		p = p.masking(`/\S+/(\w+\.db)`, "$1", `"hash":\d+`, `"hash":HASH`, `"Hash" : \d+`, `"Hash" : HASH`, `"totalSize":\d+`, `"totalSize":SIZE`,
			`"Size" : \d+`, `"Size" : SIZE`, `^[0-9a-f]+,`, "HASH,", `│[0-9a-f]{6,8}│`, "│HASH│", `[\d.]+ [kM]B`, "SIZE")
		p.compare([]string{"snapshot", "save"}, p.each(func(s *store) result {
			name := filepath.Join(t.TempDir(), "backup.db")
			s.values["backup"] = name
			return s.start(t, "", "snapshot", "save", name).wait(t)
		}))
		for _, format := range formats {
			p.tool("snapshot", "status", "{backup}", "--write-out="+format)
		}
		p.tool("snapshot", "restore", "{backup}", "--name=m", "--data-dir=restored", "--initial-cluster-token=token",
			"--initial-cluster=m=http://127.0.0.1:1", "--initial-advertise-peer-urls=http://127.0.0.1:1")
		p.tool("snapshot", "restore", "{backup}", "--data-dir=revised", "--bump-revision=100", "--mark-compacted", "--wal-dir=log")
		p.tool("snapshot", "restore", "{backup}", "--data-dir=revised", "--bump-revision=100")
		p.restored()
		hash := p.masking(`(?m)\b[0-9a-f]+, (\d+), (-?\d+)$`, "HASH, $1, $2")
		hash.tool("hashkv", "{backup}")
		hash.tool("hashkv", "{backup}", "--rev=2", "--write-out=json") // changes the file
		for _, s := range p.stores {
			b, err := os.ReadFile(s.values["backup"])
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(s.values["backup"], b[:len(b)-1], 0o600))
		}
		p.tool("snapshot", "restore", "{backup}", "--data-dir=damaged")
		p.tool("snapshot", "restore", filepath.Join(t.TempDir(), "missing.db"), "--data-dir=damaged")
		p.fails("snapshot", "save")
	})
}

// tool runs a command of etcdutl on the files of both stores.
func (p *pair) tool(args ...string) result {
	p.Helper()
	return p.compare(args, p.each(func(s *store) result {
		filled := make([]string, len(args))
		for i, a := range args {
			filled[i] = s.fill(p, a)
		}
		return run(p, nil, etcdutl, filled...).wait(p)
	}))
}

// restored runs the commands of etcdutl for data directories on those that it restores.
func (p *pair) restored() {
	p.Helper()
	for _, s := range p.stores {
		s.values["data"] = filepath.Join(p.TempDir(), "data")
		s.mask("DATA", s.values["data"])
	}
	p.tool("snapshot", "restore", "{backup}", "--data-dir={data}")
	p.tool("defrag", "--data-dir={data}")
	p.tool("migrate", "--data-dir={data}", "--target-version=3.6")
	p.tool("migrate", "--data-dir={data}", "--target-version=3.7")
	p.tool("migrate", "--data-dir={data}", "--target-version=2.3")
	p.tool("snapshot", "status", "{data}/member/snap/db")
}
