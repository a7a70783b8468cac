// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// content returns the leaves of a branch, and checks that no key is twice in it.
func content(t *testing.T, b *branch[int]) map[string]int {
	found := map[string]int{}
	b.all(func(l *leaf[int]) bool {
		require.NotContains(t, found, l.key)
		found[l.key] = l.value
		return true
	})
	return found
}

// A trie behaves as a map, earlier tries do not change, and diff finds exactly the differences: with hashes that
// are spread, and with hashes that are equal in all or most bits.
func TestTrieIsAPersistentMap(t *testing.T) {
	seed := rand.Uint64()
	t.Log("seed", seed)
	for name, hash := range map[string]func(h uint64) uint64{
		"spread":         func(h uint64) uint64 { return h },
		"equal":          func(h uint64) uint64 { return h % 3 },
		"alike till end": func(h uint64) uint64 { return h << 60 },
		"alike in parts": func(h uint64) uint64 { return h % 8 << 10 },
	} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			salt := maphash.MakeSeed()
			b, model := &branch[int]{}, map[string]int{}
			var e *edit // alternately for one change and for several
			older, olderModel := b, map[string]int{}
			for i := range 3000 {
				key := fmt.Sprint(random.IntN(50)) + strings.Repeat("\x00", random.IntN(3)) // many share a prefix
				h := hash(maphash.String(salt, key))
				_, had := model[key]
				var changed bool
				if random.IntN(100) < 50+40*(1-i/500%2*2) { // the map grows and shrinks alternately
					b, changed = b.with(e, 0, leaf[int]{hash: h, key: key, value: i})
					model[key] = i
					require.Equal(t, !had, changed)
				} else {
					b, changed = b.without(e, 0, h, key)
					delete(model, key)
					require.Equal(t, had, changed)
				}
				l := b.get(0, h, key)
				want, there := model[key]
				require.Equal(t, there, l != nil)
				if there {
					require.Equal(t, want, l.value)
				}
				if random.IntN(20) > 0 {
					continue
				}
				require.Equal(t, model, content(t, b))
				require.Equal(t, olderModel, content(t, older), "the older trie")
				patched := maps.Clone(olderModel)
				diff(0, place[int]{below: older}, place[int]{below: b}, func(was, is *leaf[int]) bool {
					if is == nil {
						require.Equal(t, olderModel[was.key], was.value)
						require.Contains(t, patched, was.key)
						delete(patched, was.key)
						return true
					}
					if was == nil {
						require.NotContains(t, olderModel, is.key)
					} else {
						require.NotEqual(t, was.value, is.value)
					}
					patched[is.key] = is.value
					return true
				})
				require.Equal(t, model, patched)
				if random.IntN(5) == 0 {
					older, olderModel = b, maps.Clone(model)
					if e = nil; random.IntN(3) > 0 {
						e = &edit{}
					}
				}
			}
		})
	}
}

func TestTrieDiffVisitsOnlyChanges(t *testing.T) {
	a := trie[int]{seed: maphash.MakeSeed()}
	for i := range 10000 {
		a = a.with(fmt.Sprint(i), i)
	}
	b := a.with("7", -7).with("new", 1).without("8")
	require.Equal(t, 10000, b.len)
	visited := 0
	b.since(a, func(_, _ *leaf[int]) bool { visited++; return true })
	require.Equal(t, 3, visited)
	cost := testing.AllocsPerRun(100, func() { b.with("7", 8) })
	require.Less(t, cost, 11.0, "one path is copied")
}
