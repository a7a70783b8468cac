// SPDX-License-Identifier: Apache-2.0

// With the race detector a pool forgets objects at random.
//go:build !race

package command_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
)

// The samples have the largest numbers in every field, so their encodings are the longest.
func TestGrownEntryIsNotMoved(t *testing.T) {
	all := puts(1000)
	for _, p := range proposals() {
		if size, _ := command.CheckSize(&p.Command, math.MaxInt); size > 0 {
			all = append(all, p)
		}
	}
	size := sizes(t, all)
	require.LessOrEqual(t, testing.AllocsPerRun(10, func() {
		e := command.NewEntry()
		e.Grow(len(all), size)
		for i := range all {
			e.Add(&all[i])
		}
		e.Bytes()
	}), 2.0, "the entry and its bytes")
}

func TestSizesAndChecksAllocateNothing(t *testing.T) {
	lock := nest(command.Txn{Compares: compares(1), Then: []command.Op{get("a", ""), put("k")}, Else: []command.Op{txn(put("k"))}})
	for _, op := range []command.Op{put("k"), get("k", "z"), del("k", "z"), lock} {
		c := command.Command{As: &command.As{User: "alice"}, Op: op}
		require.NoError(t, command.Validate(&c.Op, maxOps))
		require.Zero(t, testing.AllocsPerRun(100, func() {
			_, _ = command.CheckSize(&c, 1000)
			_ = command.Validate(&c.Op, maxOps)
		}))
	}
}
