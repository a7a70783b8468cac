// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func showState(m coterie.PrefixState) string {
	var kvs, events []string
	for _, k := range slices.Sorted(maps.Keys(m.KVs)) {
		kvs = append(kvs, k+"="+m.KVs[k].Value)
	}
	for _, e := range m.Events {
		prev := ""
		if e.PrevKV != nil {
			prev = " was " + e.PrevKV.Value
		}
		events = append(events, fmt.Sprintf("%v %s=%s%s", e.Type, e.KV.Key, e.KV.Value, prev))
	}
	return fmt.Sprintf("%d {%s} [%s]", m.Revision, strings.Join(kvs, " "), strings.Join(events, ", "))
}

func follow(t *testing.T, n *coterie.Node, prefix string) func() coterie.PrefixState {
	ctx, cancel := context.WithCancel(t.Context())
	next, stop := iter.Pull2(coterie.Follow(ctx, n, prefix))
	t.Cleanup(func() {
		cancel()
		_, err, _ := next()
		require.ErrorIs(t, err, context.Canceled)
		stop()
	})
	return func() coterie.PrefixState {
		t.Helper()
		m, err, ok := next()
		require.True(t, ok)
		require.NoError(t, err)
		return m
	}
}

func TestFollow(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		put(t, n, "elsewhere", "v")
		next := follow(t, n, "c/")
		first := next()
		require.Equal(t, "2 {} []", showState(first))
		put(t, n, "c/a", "1")
		require.Equal(t, "3 {c/a=1} [PUT c/a=1]", showState(next()))
		put(t, n, "elsewhere", "w")
		commit(t, n.Txn(t.Context()).Then(coterie.OpPut("c/b", "2"), coterie.OpPut("c/a", "3")))
		both := next()
		require.Equal(t, "5 {c/a=3 c/b=2} [PUT c/b=2, PUT c/a=3 was 1]", showState(both))
		del(t, n, "c/a")
		require.Equal(t, "6 {c/b=2} [DELETE c/a= was 3]", showState(next()))
		require.Equal(t, "5 {c/a=3 c/b=2} [PUT c/b=2, PUT c/a=3 was 1]", showState(both), "the receiver owns each state")

		// A loop that is slower than the compaction gets the difference.
		put(t, n, "c/c", "5")
		put(t, n, "c/c", "6")
		del(t, n, "c/b")
		put(t, n, "c/d", "7")
		require.NoError(t, errOf(n.Compact(t.Context(), 10)))
		require.Equal(t, "10 {c/c=6 c/d=7} [DELETE c/b= was 2, PUT c/c=6, PUT c/d=7]", showState(next()))
		put(t, n, "c/d", "8")
		require.Equal(t, "11 {c/c=6 c/d=8} [PUT c/d=8 was 7]", showState(next()))
	})
}

func TestFollowAcrossLeaders(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		follower := c.Follower()
		next := follow(t, follower, "c/")
		require.Empty(t, next().KVs)
		for i := range 3 {
			leader := c.Leader()
			put(t, leader, fmt.Sprint("c/", i), "v")
			require.Len(t, next().KVs, i+1)
			if leader != follower {
				crashed := c.Index(leader)
				c.Crash(crashed)
				c.Leader()
				c.Restart(crashed)
			}
		}
	})
}
