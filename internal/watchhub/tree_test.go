// SPDX-License-Identifier: Apache-2.0

package watchhub

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/mvcc"
)

// random returns a source of random numbers and logs its seed.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	a, b := rand.Uint64(), rand.Uint64()
	t.Logf("seed %d, %d", a, b)
	return rand.New(rand.NewPCG(a, b))
}

// A span is an expected range of a tree.
type span struct {
	key, end string
	group    *group
}

// naive is the reference for a tree: a list with linear search, by the store's rule.
type naive []span

func (l naive) find(key, end string) int {
	return slices.IndexFunc(l, func(s span) bool { return s.key == key && s.end == end })
}

func (l naive) stab(k string) (found []*group) {
	for _, s := range l {
		if mvcc.Contains(s.key, s.end, k) {
			found = append(found, s.group)
		}
	}
	return found
}

func (l naive) all() (groups []*group) {
	for _, s := range l {
		groups = append(groups, s.group)
	}
	return groups
}

// collect returns the groups that each passes to its argument.
func collect(each func(fn func(*group))) (groups []*group) {
	each(func(g *group) { groups = append(groups, g) })
	return groups
}

// same checks that got has exactly the groups of want, each once.
func same(t testing.TB, want, got []*group) {
	t.Helper()
	set := map[*group]bool{}
	for _, g := range got {
		set[g] = true
	}
	if len(want) != len(got) || len(set) != len(got) {
		require.FailNow(t, "wrong groups", "%d, of which %d differ, instead of %d", len(got), len(set), len(want))
	}
	for _, g := range want {
		if !set[g] {
			require.FailNow(t, "a group is missing")
		}
	}
}

// check verifies the invariants of the tree: the order of the ranges, the heap order of the priorities,
// and the greatest ends. It returns the number of nodes and the height.
func check(t testing.TB, n *node) (size, height int) {
	t.Helper()
	if n == nil {
		return 0, 0
	}
	greatest := n.end
	for i, child := range []*node{n.left, n.right} {
		if child == nil {
			continue
		}
		require.LessOrEqual(t, child.priority, n.priority, "the priorities are not in heap order")
		require.Equal(t, i == 1, n.before(child.key, child.end), "the ranges are out of order")
		s, h := check(t, child)
		size, height = size+s, max(height, h)
		if greatest != fromKey && (child.greatest == fromKey || child.greatest > greatest) {
			greatest = child.greatest
		}
	}
	require.Equal(t, greatest, n.greatest)
	return size + 1, height + 1
}

// randomKey returns one of a few short keys, so that ranges repeat, nest, touch, overlap and are empty.
// Keys of zeros are ordinary keys, but one of them means unbounded as an end.
func randomKey(r *rand.Rand) string {
	const letters = "\x00abc\xff"
	b := make([]byte, 1+r.IntN(3))
	for i := range b {
		b[i] = letters[r.IntN(len(letters))]
	}
	return string(b)
}

func randomEnd(r *rand.Rand) string {
	if r.IntN(8) == 0 {
		return fromKey
	}
	return randomKey(r)
}

func TestTreeAgreesWithList(t *testing.T) {
	r := random(t)
	var tree tree
	var list naive
	for i := range 20_000 {
		// The tree grows for a while and shrinks for a while, down to nothing.
		grows := i/1000%2 == 0
		switch key, end := randomKey(r), randomEnd(r); {
		case r.IntN(3) == 0:
			same(t, list.stab(key), collect(func(fn func(*group)) { tree.stab(key, fn) }))
		case grows:
			g := tree.insert(key, end)
			require.NotNil(t, g)
			if at := list.find(key, end); at >= 0 {
				require.Same(t, list[at].group, g, "a range has one group")
			} else {
				list = append(list, span{key, end, g})
			}
		default:
			at := list.find(key, end)
			if at < 0 && len(list) > 0 && r.IntN(4) > 0 {
				at = r.IntN(len(list))
				key, end = list[at].key, list[at].end
			}
			tree.delete(key, end)
			require.Nil(t, tree.find(key, end))
			if at >= 0 {
				list = slices.Delete(list, at, at+1)
			}
		}
		if i%400 == 0 {
			size, _ := check(t, tree.root)
			require.Len(t, list, size)
			same(t, list.all(), collect(tree.all))
			for _, s := range list {
				same(t, []*group{s.group}, []*group{tree.find(s.key, s.end)})
			}
		}
	}
}

// Ranges are inserted in the order of their keys. An unbalanced tree would become a list.
func TestTreeStaysBalanced(t *testing.T) {
	var tree tree
	const n = 1 << 12
	key := func(i int) string { return string([]byte{byte(i >> 8), byte(i), 'k'}) }
	for i := range n {
		tree.insert(key(i), key(i+1))
	}
	size, height := check(t, tree.root)
	require.Equal(t, n, size)
	require.Less(t, height, 4*12)
	for i := range n / 2 {
		tree.delete(key(2*i), key(2*i+1))
	}
	size, height = check(t, tree.root)
	require.Equal(t, n/2, size)
	require.Less(t, height, 4*11)
}

// The end of an unbounded range looks like the least key, which a range may contain.
func TestLeastKeyIsFound(t *testing.T) {
	const least = "\x00"
	for _, end := range []string{fromKey, "\x00\x00", "\x01"} {
		var tree tree
		g := tree.insert(least, end)
		require.Equal(t, []*group{g}, collect(func(fn func(*group)) { tree.stab(least, fn) }), "end %q", end)
	}
	var tree tree
	tree.insert("\x01", "\x02")
	require.Empty(t, collect(func(fn func(*group)) { tree.stab(least, fn) }))
}
