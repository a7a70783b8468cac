// SPDX-License-Identifier: Apache-2.0

package boltlog_test

import (
	"flag"
	"path/filepath"
	"testing"

	"github.com/coterie-kv/coterie/boltlog"
	"github.com/coterie-kv/coterie/internal/raftlog/raftlogtest"
	"github.com/coterie-kv/coterie/internal/vfs"
)

var kills = flag.Int("kills", 4, "the number of processes that TestKilledProcessOnBolt kills")

func TestLogOnBolt(t *testing.T) {
	raftlogtest.Run(t, boltlog.New(boltlog.Options{}).Format(), func(t testing.TB) (vfs.FS, string) {
		return vfs.OS{}, filepath.Join(t.TempDir(), "node")
	})
}

func TestKilledProcessOnBolt(t *testing.T) {
	raftlogtest.Kill(t, boltlog.New(boltlog.Options{}).Format(), *kills)
}
