// SPDX-License-Identifier: Apache-2.0

package compat

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A node of an earlier version, which knows no users, neither skips them nor damages anything. It does not apply
// unknown entries and snapshots, and follows again when it is upgraded. The earliest version stops; later
// ones refuse the message. A downgrade is rejected as well.
func TestEarlierNodeRejectsUsers(t *testing.T) {
	if testing.Short() {
		t.Skip("builds an earlier version and runs processes")
	}
	requireHistory(t, first)
	old, now := earlier(t, first), current(t)
	all := sites(t, t.TempDir(), func(addr string) string { return addr })
	nodes := map[string]*process{"a": now.start(t, all[0]), "b": now.start(t, all[1]), "c": old.start(t, all[2])}
	for _, s := range all {
		nodes[s.name].must(t, "ready")
	}
	nodes["c"].must(t, "put k before")
	nodes["c"].stop(t) // so that one of the others leads

	rejects := func() {
		nodes["c"] = old.start(t, all[2])
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := nodes["c"].do(ctx, "get k") // linearizable: it needs the entries
		require.Error(t, err)
		require.NoError(t, nodes["c"].cmd.Process.Kill())
		require.Error(t, nodes["c"].cmd.Wait())
		require.Regexp(t, "message refused|unknown kind of command|version 2", nodes["c"].err.String())
	}
	nodes["a"].must(t, "protect alice k")
	nodes["a"].must(t, "putas alice k allowed")
	rejects()
	for i := range 500 { // until the leader has only a snapshot of the users
		nodes["b"].must(t, fmt.Sprint("putas alice k ", i))
	}
	rejects()

	nodes["c"] = now.start(t, all[2])
	nodes["c"].must(t, "ready")
	require.Equal(t, "value 499", nodes["c"].must(t, "getas alice k"))
	nodes["c"].must(t, "putas alice k after")
	_, err := nodes["c"].do(t.Context(), "putas alice secret stolen")
	require.ErrorContains(t, err, "permission denied")
	require.Equal(t, "nothing", nodes["c"].must(t, "get secret"))

	nodes["b"].stop(t)
	before, err := os.ReadDir(all[1].dir + "/log")
	require.NoError(t, err)
	down := old.start(t, all[1])
	require.Error(t, down.cmd.Wait())
	require.Contains(t, down.err.String(), "version 2")
	after, err := os.ReadDir(all[1].dir + "/log")
	require.NoError(t, err)
	require.Equal(t, len(before), len(after))
	nodes["b"] = now.start(t, all[1])
	nodes["b"].must(t, "ready")
	require.Equal(t, "value after", nodes["b"].must(t, "getas alice k"))
	for _, s := range all {
		nodes[s.name].stop(t)
	}
}
