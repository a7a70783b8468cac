// SPDX-License-Identifier: Apache-2.0

package sharedconfig_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/sharedconfig"
)

// Other updates may make versions between the two reads of an Update. The Update must not fail because of them.
func TestUpdateWhileNewerVersionsAppear(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		cfg := config("limits")
		cfg.History = 2
		v := open(t, c.Node(0), cfg)
		rate(t, v, 1)
		for i := range 3 {
			put(t, c.Node(0), fmt.Sprintf("limits@%019d", 1000+i), `{"Rate":9}`)
		}
		rate(t, v, 2)
		rate(t, v, 3)
	})
}

// All nodes increment a value while leaders change. No increment is lost or counted twice.
func TestUpdatesAreNotLost(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const updaters = 100
		var values []*sharedconfig.Value[limits]
		for i := range 3 {
			values = append(values, open(t, c.Node(i), config("limits")))
		}
		var all sync.WaitGroup
		for i := range updaters {
			all.Go(func() {
				for range 2 {
					_, err := values[i%3].Update(t.Context(), func(l limits) (limits, error) { l.Rate++; return l, nil })
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		for range 3 {
			cut := c.Index(c.Leader())
			c.Pause(cut)
			time.Sleep(10 * time.Second)
			c.Resume(cut)
			time.Sleep(10 * time.Second)
		}
		all.Wait()
		v := open(t, c.Node(0), config("limits"))
		require.Equal(t, 100+2*updaters, v.Load().Rate)
	})
}

func TestUnchangedUpdateWritesNothing(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		v := open(t, c.Node(0), config("limits"))
		rev := rate(t, v, 5)
		require.Equal(t, rev, rate(t, v, 5))
		require.Equal(t, rev, c.Node(0).Status().Revision)
	})
}

// A field of a lower layer that an update removes stays removed, also if the update sets another one beside it.
func TestUpdateStoresItsResult(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Node(0), "limits", `{"Rate":1,"Tags":{"a":"1","b":"2"}}`)
		v := open(t, c.Node(0), config("limits", "limits/own"))
		for _, tags := range []map[string]string{nil, {"a": "3"}, {"c": "4"}, nil, {"b": "2"}} {
			_, err := v.Update(t.Context(), func(l limits) (limits, error) { l.Tags = tags; return l, nil })
			require.NoError(t, err)
			require.Equal(t, limits{Rate: 1, Tags: tags}, v.Load())
		}
	})
}

// A document that a Put has replaced is not a version. Rollback must not skip it for an older version.
func TestRollbackOfABadPut(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		v := open(t, n, config("limits"))
		rate(t, v, 1)
		rate(t, v, 2)
		put(t, n, "limits", "bad")
		_, err := v.Rollback(t.Context(), 0)
		require.NoError(t, err)
		require.Equal(t, 2, v.Load().Rate)

		rev := put(t, n, "limits", "bad again")
		_, err = n.Compact(t.Context(), rev)
		require.NoError(t, err)
		_, err = v.Rollback(t.Context(), 0)
		var rejected *sharedconfig.RejectedError
		require.ErrorAs(t, err, &rejected, "the history no longer has the replaced document, and the newest version is bad")
	})
}

// An Update also makes a version of the document that a Put has replaced before.
func TestUpdateKeepsValueReplacedByPut(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		put := func(key string, rate int) int64 { return put(t, n, key, fmt.Sprintf(`{"Rate":%d}`, rate)) }
		rates := func(v *sharedconfig.Value[limits]) (found []int) {
			versions, err := v.History(t.Context())
			require.NoError(t, err)
			for _, version := range versions {
				found = append(found, version.Value.Rate)
			}
			return found
		}
		v := open(t, n, config("limits"))
		rate(t, v, 1)
		two := rate(t, v, 2)
		put("limits", 3)
		require.Equal(t, []int{3, 1}, rates(v))
		rate(t, v, 4)
		require.Equal(t, []int{4, 3, 2, 1}, rates(v))
		_, err := v.Rollback(t.Context(), two)
		require.NoError(t, err, "the revision of a version is the one that stored it")
		require.Equal(t, []int{2, 4, 3, 2, 1}, rates(v))

		// A document that the history no longer has is lost.
		_, err = n.Compact(t.Context(), put("limits", 5))
		require.NoError(t, err)
		rate(t, v, 6)
		require.Equal(t, []int{6, 5, 4, 3, 2, 1}, rates(v))

		// No more versions are kept than Config.History, and they are the newest.
		cfg := config("few")
		for history, want := range map[int][]int{-1: {4}, 1: {4, 3}, 2: {4, 3, 2}} {
			cfg.Keys, cfg.History = []string{fmt.Sprint("few", history)}, history
			v := open(t, n, cfg)
			rate(t, v, 1)
			rate(t, v, 2)
			put(cfg.Keys[0], 3)
			synctest.Wait()
			rate(t, v, 4)
			require.Equal(t, want, rates(v))
		}
	})
}

func TestSimilarKeysAreNotVersions(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		for _, other := range []string{"limits@1", "limits@a", "limits@b"} {
			put(t, n, other, `{"Rate":1000}`)
		}
		cfg := config("limits")
		cfg.History = 3
		v := open(t, n, cfg)
		for i := range 4 {
			rate(t, v, i+1)
		}
		versions, err := v.History(t.Context())
		require.NoError(t, err)
		require.Len(t, versions, 4)
		_, err = v.Rollback(t.Context(), 0)
		require.NoError(t, err)
		require.Equal(t, 3, v.Load().Rate)
	})
}

func TestHistoryAndRollback(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		cfg := config("limits")
		cfg.History = 3
		v := open(t, n, cfg)
		_, err := v.Rollback(t.Context(), 0)
		require.ErrorIs(t, err, sharedconfig.ErrNoVersion)
		var revs []int64
		for i := range 6 {
			revs = append(revs, rate(t, v, i+1))
		}
		_, err = n.Compact(t.Context(), revs[5]) // versions do not depend on the history of the store
		require.NoError(t, err)
		history := func() (found []string) {
			versions, err := v.History(t.Context())
			require.NoError(t, err)
			for _, version := range versions {
				require.NoError(t, version.Err)
				require.JSONEq(t, fmt.Sprintf(`{"Rate":%d}`, version.Value.Rate), version.Document)
				found = append(found, fmt.Sprintf("%d@%d", version.Value.Rate, version.Revision))
			}
			return found
		}
		at := func(rate int) string { return fmt.Sprintf("%d@%d", rate, revs[rate-1]) }
		require.Equal(t, []string{at(6), at(5), at(4), at(3)}, history())

		back, err := v.Rollback(t.Context(), revs[3])
		require.NoError(t, err)
		require.Equal(t, 4, v.Load().Rate)
		require.Equal(t, []string{fmt.Sprint("4@", back), at(6), at(5), at(4)}, history())
		again, err := v.Rollback(t.Context(), 0)
		require.NoError(t, err)
		require.Equal(t, 6, v.Load().Rate)
		same, err := v.Rollback(t.Context(), again)
		require.NoError(t, err)
		require.Equal(t, again, same, "the current document is that version")
		_, err = v.Rollback(t.Context(), revs[0])
		require.ErrorIs(t, err, sharedconfig.ErrNoVersion, "the version is no longer kept")

		// A version that is bad by now is rejected.
		cfg.Validate = func(l limits) error {
			if l.Rate == 5 {
				return errRate
			}
			return nil
		}
		strict := open(t, n, cfg)
		_, err = strict.Rollback(t.Context(), revs[4])
		require.ErrorIs(t, err, errRate)
		versions, err := strict.History(t.Context())
		require.NoError(t, err)
		bad := 0
		for _, version := range versions {
			if version.Err != nil {
				require.Equal(t, 5, version.Value.Rate)
				bad++
			}
		}
		require.Equal(t, 1, bad)
	})
}

// A document is written together with the version that it replaces.
func TestTooLargeUpdateChangesNothing(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		large := func(letter string) func(string) (string, error) {
			return func(string) (string, error) { return strings.Repeat(letter, 1<<20), nil }
		}
		v := open(t, n, sharedconfig.Config[string]{Keys: []string{"text"}})
		rev, err := v.Update(t.Context(), large("a"))
		require.NoError(t, err)
		_, err = v.Update(t.Context(), large("b"))
		require.ErrorIs(t, err, coterie.ErrTooLarge)
		require.Equal(t, rev, v.Current().Revision)
		require.Equal(t, "a", v.Load()[:1])

		// A document that a Put has replaced does not count, because it has a write of its own.
		part := strings.Repeat("c", 600<<10)
		_, err = n.Put(t.Context(), "text", strconv.Quote(part))
		require.NoError(t, err)
		_, err = n.Put(t.Context(), "text", strconv.Quote(part+"d"))
		require.NoError(t, err)
		_, err = v.Update(t.Context(), func(string) (string, error) { return part + "e", nil })
		require.NoError(t, err)
		versions, err := v.History(t.Context())
		require.NoError(t, err)
		require.Len(t, versions, 3)

		alone := open(t, n, sharedconfig.Config[string]{Keys: []string{"text"}, History: -1})
		_, err = alone.Update(t.Context(), large("b"))
		require.NoError(t, err)
		require.Equal(t, "b", alone.Load()[:1])
	})
}

func TestHistoryLength(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		for history, want := range map[int]int64{-1: 0, 0: 10, 1: 1, 2: 2} {
			key := fmt.Sprint("limits", history)
			cfg := config(key)
			cfg.History = history
			v := open(t, c.Node(0), cfg)
			for i := range 15 {
				rate(t, v, i+1)
				r, err := c.Node(0).Get(t.Context(), key+"@", coterie.WithPrefix(), coterie.WithCountOnly())
				require.NoError(t, err)
				require.Equal(t, min(want, int64(i)), r.Count)
			}
		}
	})
}
