// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"cmp"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A sorted is a slice of versions in the order of a tree.
type sorted []version

func (s sorted) index(key string, rev int64) int {
	i, _ := slices.BinarySearchFunc(s, 0, func(v version, _ int) int {
		if v.before(key, rev) {
			return -1
		}
		return 1
	})
	return i
}

// at returns the version at an index, if there is one.
func (s sorted) at(i int) version {
	if i < 0 || i >= len(s) {
		return version{}
	}
	return s[i]
}

func random(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if given := os.Getenv("COTERIE_SEED"); given != "" {
		var err error
		seed, err = strconv.ParseUint(given, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("COTERIE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// compareTree compares a tree with its versions in order.
func compareTree(t *testing.T, r *rand.Rand, key func(*rand.Rand) string, want sorted, got *tree) {
	t.Helper()
	require.NoError(t, got.check())
	require.Equal(t, len(want), got.len)
	var all sorted
	got.ascend("", fromKey, func(v version) bool {
		all = append(all, v)
		return true
	})
	require.True(t, slices.Equal(want, all))
	for range 20 {
		key, rev := key(r), 1+r.Int64N(100)
		i := want.index(key, rev)
		require.Equal(t, want.at(i), got.first(key, rev))
		require.Equal(t, want.index(key, 0), got.rank(key))
	}
}

func treeKey(r *rand.Rand) string { return fmt.Sprintf("key-%d", r.IntN(2000)) }

// letters returns a string of at most some of the given letters.
func letters(r *rand.Rand, most int, of string) string {
	s := make([]byte, r.IntN(most+1))
	for i := range s {
		s[i] = of[r.IntN(len(of))]
	}
	return string(s)
}

// treeKeys are kinds of keys. The nodes of each kind skip another number of bytes. All keys can be equal to a separator, and
// can be prefixes of other keys.
var treeKeys = []func(r *rand.Rand) string{
	treeKey,
	func(r *rand.Rand) string { return letters(r, 6, "\x00a\xff") },
	func(r *rand.Rand) string { return strings.Repeat("a", r.IntN(500)) + letters(r, 1, "\x00\xff") },
	func(r *rand.Rand) string {
		return "/registry/" + strings.Repeat("services/", r.IntN(3)) + letters(r, 8, "01") + letters(r, 4, "\x00/\xff")
	},
	func(r *rand.Rand) string { return fmt.Sprintf("/registry/services/%d/%d", r.IntN(3), r.IntN(1000)) },
}

func treeVersion(key string, rev int64) version {
	return newVersion(&KeyValue{Key: key, CreateRevision: 1, ModRevision: rev, Version: 1}, links{})
}

// A tree agrees with a sorted slice while it grows and shrinks, and its copies do not change.
func TestTreeAgreesWithSortedSlice(t *testing.T) {
	type snapshot struct {
		want sorted
		tree tree
	}
	r := random(t)
	for _, key := range treeKeys {
		var got tree
		var want sorted
		var taken []snapshot
		add := func(key string, rev int64) {
			v := treeVersion(key, rev)
			got.add(v)
			want = slices.Insert(want, want.index(key, rev+1), v)
		}
		remove := func(i int) {
			var c cursor
			got.seek(&c, want[i].key(), want[i].modRevision())
			first := want.index(want[i].key(), want[i].modRevision())
			require.Equal(t, want[first], c.version())
			got.remove(&c)
			want = slices.Delete(want, first, first+1)
		}
		for _, grow := range []int{9, 1, 8, 2, 9, 0} { // of ten steps
			for range 3000 {
				switch {
				case r.IntN(10) < grow:
					add(key(r), 1+r.Int64N(100))
				case len(want) > 0 && r.IntN(200) == 0: // neighbors, so that nodes become empty
					i := r.IntN(len(want))
					for range min(r.IntN(1000), len(want)-i) {
						remove(i)
					}
					require.NoError(t, got.check())
				case len(want) > 0:
					remove(r.IntN(len(want)))
				}
				if r.IntN(300) == 0 {
					taken = append(taken, snapshot{slices.Clone(want), got.share()})
				}
			}
			compareTree(t, r, key, want, &got)
		}
		for len(want) > 0 {
			remove(r.IntN(len(want)))
		}
		require.Nil(t, got.root)
		for _, s := range taken {
			compareTree(t, r, key, s.want, &s.tree)
		}
	}
}

// Keys that are prefixes of others can be equal to a separator.
func TestTreeWithOneVersionOfEachKey(t *testing.T) {
	r := random(t)
	var got tree
	var want sorted
	for i := range 50_000 {
		key := make([]byte, 1+r.IntN(5))
		for i := range key {
			key[i] = "ab\xff"[r.IntN(3)]
		}
		var c cursor
		old := got.findAt(&c, string(key))
		at := want.index(string(key), 0)
		v := treeVersion(string(key), 1+int64(i))
		switch exists := at < len(want) && want[at].key() == string(key); {
		case !exists:
			require.False(t, old.exists())
			got.insert(&c, v)
			want = slices.Insert(want, at, v)
		case r.IntN(2) == 0:
			require.Equal(t, want[at], old)
			got.replace(&c, v)
			want[at] = v
		default:
			require.Equal(t, want[at], old)
			got.remove(&c)
			want = slices.Delete(want, at, at+1)
		}
		require.Equal(t, want.at(at), got.find(want.at(at).keyOr("none")))
		if i%1000 == 0 {
			require.NoError(t, got.check())
			got.share()
		}
	}
	compareTree(t, r, treeKey, want, &got)
}

func (v version) keyOr(other string) string {
	if v.exists() {
		return v.key()
	}
	return other
}

func TestTreeOfVersionsOfOneKey(t *testing.T) {
	r := random(t)
	var got tree
	var want sorted
	for i := range 5000 {
		v := treeVersion("key-1", 1+int64(i/1000)) // more than a leaf of one revision
		got.add(v)
		want = append(want, v)
	}
	compareTree(t, r, treeKey, want, &got)
	var c cursor
	got.seek(&c, "key-1", 0)
	require.Equal(t, want[2999], got.skip(&c, 3))
	require.False(t, c.version().exists())
}

func TestTreeOfAscendingKeysHasFullLeaves(t *testing.T) {
	var got tree
	for i := range 100_000 {
		var c cursor
		key := fmt.Sprintf("key-%08d", i)
		got.findAt(&c, key)
		got.insert(&c, treeVersion(key, 1))
	}
	require.NoError(t, got.check())
	leaves := 0
	var count func(n *node)
	count = func(n *node) {
		if n.kids == nil {
			leaves++
			return
		}
		for _, kid := range n.kids.nodes[:n.n] {
			count(kid)
		}
	}
	count(got.root)
	require.Equal(t, (100_000+fan-1)/fan, leaves)
}

// A node and its neighbor, on either side, become one as soon as both fit into half a node.
func TestRemoveMergesNeighbors(t *testing.T) {
	for _, pair := range [][2]int{{0, 1}, {1, 0}, {1, 2}, {2, 1}} {
		var got tree
		for i := range 3 * fan {
			got.add(treeVersion(fmt.Sprintf("key-%02d", i), 1))
		}
		require.EqualValues(t, 3, got.root.n)
		remove := func(leaf, count int) {
			for range count {
				var c cursor
				got.seek(&c, got.root.kids.nodes[leaf].items[0].key(), 1)
				got.remove(&c)
			}
		}
		remove(pair[1], fan-fan/4)
		remove(pair[0], fan-fan/4-1)
		require.EqualValues(t, 3, got.root.n, "%v", pair)
		remove(pair[0], 1)
		require.EqualValues(t, 2, got.root.n, "%v", pair)
		require.NoError(t, got.check())
	}
}

// Each of these keys belongs at the end of the same full leaf, which is the last one of its parent. The depth of the tree must
// not grow with each of them.
func TestTreeOfKeysBeforeSeparatorIsNotDeep(t *testing.T) {
	var got tree
	for i := range fan * fan {
		got.add(treeVersion(fmt.Sprintf("a-%04d", i), 1))
	}
	for c := byte(255); c > 'a'; c-- {
		got.add(treeVersion(string([]byte{c}), 1))
		require.NoError(t, got.check())
	}
}

// Heads decide most steps of a search, even if all keys have many bytes in common. Then the few nodes at the ends of the tree, and
// the root, have no useful heads.
func TestSearchReadsFewVersions(t *testing.T) {
	for format, most := range map[string]float64{"%08d": 2, "/registry/services/namespace/%08d": 8} {
		const keys = 20_000
		key := func(i int) string { return fmt.Sprintf(format, uint32(i)*2654435761%100_000_000) }
		var tree tree
		for i := range keys {
			tree.add(treeVersion(key(i), 1))
		}
		read := 0
		for i := range keys {
			var c cursor
			tree.seek(&c, key(i), lowest)
			for d := range c.depth + 1 {
				from, to := c.nodes[d].candidates(0, key(i))
				read += bits.Len(uint(to - from))
			}
		}
		require.Less(t, float64(read)/keys, most, format)
	}
}

func TestSeparatorIsShort(t *testing.T) {
	for _, c := range []struct{ left, right, want string }{
		{"a", "b", "b"}, {"a", "ab", "ab"}, {"key-1", "key-2-suffix", "key-2"}, {"key", "key", "key"}, {"a\xff", "b\x00\x00", "b"},
	} {
		left, right := treeVersion(c.left, 7), treeVersion(c.right, 7)
		s := separate(left, right)
		require.Equal(t, c.want, s.key())
		require.False(t, cmp.Compare(left.key(), s.key()) > 0)
		require.False(t, right.before(s.key(), s.modRevision()))
	}
}
