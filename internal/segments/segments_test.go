// SPDX-License-Identifier: Apache-2.0

package segments_test

import (
	"flag"
	"testing"

	"github.com/coterie-kv/coterie/internal/raftlog/raftlogtest"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/vfs"
)

var kills = flag.Int("kills", 4, "the number of processes that TestKilledProcessOnSegments kills")

func TestLogOnSegments(t *testing.T) {
	raftlogtest.Run(t, segments.Format{SegmentSize: 8 << 10}, func(testing.TB) (vfs.FS, string) {
		return vfs.NewMemory().Mount(), "/node"
	})
}

func TestKilledProcessOnSegments(t *testing.T) {
	raftlogtest.Kill(t, segments.Format{SegmentSize: 8 << 10}, *kills)
}
