// SPDX-License-Identifier: Apache-2.0

package sharedconfig_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"os"
	"path/filepath"
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

type limits struct {
	Rate  int
	Burst int               `json:",omitempty"`
	Hosts []string          `json:",omitempty"`
	Tags  map[string]string `json:",omitempty"`
}

var errRate = errors.New("the rate must be positive")

func (l limits) check() error {
	if l.Rate <= 0 {
		return errRate
	}
	return nil
}

func config(keys ...string) sharedconfig.Config[limits] {
	return sharedconfig.Config[limits]{Keys: keys, Default: limits{Rate: 100}, Validate: limits.check}
}

func open[T any](t testing.TB, n *coterie.Node, cfg sharedconfig.Config[T]) *sharedconfig.Value[T] {
	t.Helper()
	v, err := sharedconfig.Open(t.Context(), n, cfg)
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

func put(t testing.TB, n *coterie.Node, key, val string) int64 {
	t.Helper()
	r, err := n.Put(t.Context(), key, val)
	require.NoError(t, err)
	return r.Revision
}

// stored returns what a key has.
func stored(t testing.TB, n *coterie.Node, key string) string {
	t.Helper()
	r, err := n.Get(t.Context(), key)
	require.NoError(t, err)
	if len(r.KVs) == 0 {
		return ""
	}
	return r.KVs[0].Value
}

func rate(t testing.TB, v *sharedconfig.Value[limits], rate int) int64 {
	t.Helper()
	rev, err := v.Update(t.Context(), func(l limits) (limits, error) { l.Rate = rate; return l, nil })
	require.NoError(t, err)
	require.Equal(t, rate, v.Load().Rate, "who has updated it has it")
	return rev
}

func TestAValueIsSharedByAll(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		var values []*sharedconfig.Value[limits]
		for i := range 3 {
			values = append(values, open(t, c.Node(i), config("limits")))
			require.Equal(t, limits{Rate: 100}, values[i].Load())
		}
		for round := range 4 {
			rev := rate(t, values[c.Index(c.Leader())], 200+round)
			c.WaitRevision(rev)
			synctest.Wait()
			for _, v := range values {
				require.Equal(t, sharedconfig.Current[limits]{Value: limits{Rate: 200 + round}, Revision: rev}, v.Current())
			}
			if round == 1 {
				require.NoError(t, c.Leader().TransferLeadership(t.Context(), c.Follower().ID()))
			}
		}
	})
}

// Hundreds of increments from all nodes, while leaders change: none is lost, none counts twice.
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

func TestABadValueReplacesNoGoodOne(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		v := open(t, n, config("limits"))
		ctx, cancel := context.WithCancel(t.Context())
		next, stop := iter.Pull2(v.Follow(ctx))
		defer stop()
		see := func() sharedconfig.Current[limits] {
			t.Helper()
			c, err, ok := next()
			require.True(t, ok)
			require.NoError(t, err)
			return c
		}
		good := rate(t, v, 50)
		require.Equal(t, 50, see().Value.Rate)

		var rejected *sharedconfig.RejectedError
		_, err := v.Update(t.Context(), func(l limits) (limits, error) { l.Rate = 0; return l, nil })
		require.ErrorIs(t, err, errRate)
		require.ErrorAs(t, err, &rejected)
		require.Zero(t, rejected.Revision)
		require.Equal(t, `{"Rate":50}`, stored(t, n, "limits"))
		refusal := errors.New("no")
		_, err = v.Update(t.Context(), func(limits) (limits, error) { return limits{Rate: 7}, refusal })
		require.Equal(t, refusal, err)
		require.NoError(t, v.Err())

		for _, bad := range []string{`{"Rate":-1}`, `{"Rate":`, `{"Rate":1} x`, `7`, `{"Rate":"x"}`} {
			rev := put(t, n, "limits", bad)
			is := see()
			require.Equal(t, limits{Rate: 50}, is.Value)
			require.Equal(t, good, is.Revision)
			require.ErrorAs(t, is.Err, &rejected)
			require.Equal(t, rev, rejected.Revision)
			require.Equal(t, is.Err, v.Err())
			require.Equal(t, 50, v.Load().Rate)
		}
		_, err = v.Update(t.Context(), func(l limits) (limits, error) { return l, nil })
		require.ErrorAs(t, err, &rejected, "what is based on a bad value is not stored")
		late := open(t, n, config("limits"))
		require.Equal(t, limits{Rate: 100}, late.Load(), "the default is all it has")
		require.Error(t, late.Err())
		noDefault := config("limits")
		noDefault.Default.Rate = 0
		_, err = sharedconfig.Open(t.Context(), n, noDefault)
		require.ErrorAs(t, err, &rejected)

		put(t, n, "limits", `{"Rate":60}`)
		require.Equal(t, 60, see().Value.Rate)
		require.NoError(t, v.Err())
		cancel()
		_, err, _ = next()
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestLayersAreMergedFieldByField(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		cfg := config("all", "service", "instance")
		cfg.Default.Tags = map[string]string{"from": "default"}
		put(t, n, "all", `{"Rate":10,"Burst":1,"Hosts":["a","b"],"Tags":{"x":"all","y":"all"},"Unknown":12345678901234567890}`)
		put(t, n, "service", `{"Burst":2,"Tags":{"y":"service"}}`)
		v := open(t, n, cfg)
		require.Equal(t, limits{10, 2, []string{"a", "b"}, map[string]string{"from": "default", "x": "all", "y": "service"}}, v.Load())
		require.Equal(t, map[string]string{"from": "default"}, cfg.Default.Tags)

		// A change of a general layer shows where nothing is above it.
		put(t, n, "all", `{"Rate":11,"Burst":9,"Unknown":12345678901234567890}`)
		synctest.Wait()
		require.Equal(t, limits{11, 2, nil, map[string]string{"from": "default", "y": "service"}}, v.Load())

		// An update writes the last layer, in what differs.
		_, err := v.Update(t.Context(), func(l limits) (limits, error) {
			l.Burst = 3
			l.Tags = map[string]string{"z": "instance", "y": "service"} // without from
			return l, nil
		})
		require.NoError(t, err)
		require.JSONEq(t, `{"Burst":3,"Tags":{"z":"instance","from":null}}`, stored(t, n, "instance"))
		require.Equal(t, limits{11, 3, nil, map[string]string{"y": "service", "z": "instance"}}, v.Load())

		// Updates keep what this program does not know.
		general := open(t, n, config("all"))
		rate(t, general, 12)
		require.Equal(t, `{"Burst":9,"Rate":12,"Unknown":12345678901234567890}`, stored(t, n, "all"))
		synctest.Wait()
		require.Equal(t, 12, v.Load().Rate)

		_, err = n.Delete(t.Context(), "instance")
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 2, v.Load().Burst)
	})
}

func TestAnUpdateThatChangesNothingWritesNothing(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		v := open(t, c.Node(0), config("limits"))
		rev := rate(t, v, 5)
		require.Equal(t, rev, rate(t, v, 5))
		require.Equal(t, rev, c.Node(0).Status().Revision)
	})
}

// What an update takes away of a lower layer stays away, also when something comes in its place.
func TestAnUpdateStoresWhatItWasGiven(t *testing.T) {
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

// Of two spellings encoding/json would take the last in the alphabet, and not the last layer, nor
// what an update has stored.
func TestAFieldThatIsSpeltInTwoWaysMakesTheValueBad(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		v := open(t, n, config("limits", "limits/own"))
		put(t, n, "limits", `{"Rate":1,"burst":2,"Tags":{"path":"1","PATH":"2"},"Unknown":{"x":1,"X":2}}`)
		synctest.Wait()
		require.NoError(t, v.Err(), "one spelling, keys of a map, and what is not known")
		require.Equal(t, limits{Rate: 1, Burst: 2, Tags: map[string]string{"path": "1", "PATH": "2"}}, v.Load())
		_, err := v.Update(t.Context(), func(l limits) (limits, error) { l.Burst = 3; return l, nil })
		var rejected *sharedconfig.RejectedError
		require.ErrorAs(t, err, &rejected)
		require.ErrorContains(t, err, `"Burst" and "burst"`)
		put(t, n, "limits/own", `{"rate":5}`)
		synctest.Wait()
		require.ErrorContains(t, v.Err(), `"Rate" and "rate"`)
		require.Equal(t, 1, v.Load().Rate)
	})
}

func TestWhatFollowsADocumentMakesItBad(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		v := open(t, c.Node(0), config("limits"))
		for _, document := range []string{`{"Rate":1}}`, `{"Rate":1}]`, `{"Rate":1}{}`, `{"Rate":1},`} {
			put(t, c.Node(0), "limits", document)
			synctest.Wait()
			require.Error(t, v.Err(), document)
			require.Equal(t, 100, v.Load().Rate)
		}
	})
}

// What a Put replaced is no version, and must not be lost to an older one.
func TestRollbackGoesToWhatABadPutReplaced(t *testing.T) {
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
		require.NoError(t, n.Compact(t.Context(), rev))
		_, err = v.Rollback(t.Context(), 0)
		var rejected *sharedconfig.RejectedError
		require.ErrorAs(t, err, &rejected, "what it replaced is no more, and the newest version is bad")
	})
}

// An Update finds what a Put has replaced before it, and makes a version of that, too.
func TestWhatAPutReplacedIsAVersionAfterTheNextUpdate(t *testing.T) {
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
		require.NoError(t, err, "its revision is the one that stored it")
		require.Equal(t, []int{2, 4, 3, 2, 1}, rates(v))

		// What history does not have is lost.
		require.NoError(t, n.Compact(t.Context(), put("limits", 5)))
		rate(t, v, 6)
		require.Equal(t, []int{6, 5, 4, 3, 2, 1}, rates(v))

		// Nor are more kept than was said, and the newest are.
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

func TestKeysThatBeginAsVersionsDoAreNone(t *testing.T) {
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

func TestTheFileHasWhatCameRightBeforeTheEnd(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		cfg := config("limits")
		cfg.File = filepath.Join(t.TempDir(), "limits.json")
		for i := range 30 {
			v := open(t, c.Node(0), cfg)
			rate(t, v, i+1)
			v.Close()
			b, err := os.ReadFile(cfg.File)
			require.NoError(t, err)
			require.Contains(t, string(b), base64.StdEncoding.EncodeToString(fmt.Appendf(nil, `{"Rate":%d}`, i+1)))
		}
	})
}

func TestAFileOutlivesAChangeOfDirectory(t *testing.T) {
	home := t.TempDir()
	t.Chdir(home)
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		cfg := config("limits")
		cfg.File = "limits.json"
		v := open(t, c.Node(0), cfg)
		t.Chdir(t.TempDir())
		rate(t, v, 42)
		v.Close()
		require.NoError(t, v.SaveErr())
		require.FileExists(t, filepath.Join(home, cfg.File))
	})
}

func TestVersionsAreKeptAndRolledBackTo(t *testing.T) {
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
		require.NoError(t, n.Compact(t.Context(), revs[5])) // versions are no history of the store
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
		require.Equal(t, again, same, "it is that version already")
		_, err = v.Rollback(t.Context(), revs[0])
		require.ErrorIs(t, err, sharedconfig.ErrNoVersion, "it is kept no more")

		// What is bad by now is refused.
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
func TestAnUpdateThatIsTooLargeWithItsVersionChangesNothing(t *testing.T) {
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

		// What a Put replaced does not count: it is written by itself.
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

func TestHowManyVersionsAreKept(t *testing.T) {
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

func TestAStartWithoutAQuorumUsesWhatTheNodeHas(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		rate(t, open(t, c.Node(0), config("limits")), 42)
		c.WaitRevision(c.Leader().Status().Revision)
		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		v, err := sharedconfig.Open(ctx, c.Node(1), config("limits"))
		require.NoError(t, err)
		defer v.Close()
		require.Equal(t, 42, v.Load().Rate)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = sharedconfig.Open(ctx, c.Node(1), config("never stored"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = v.Update(ctx, func(l limits) (limits, error) { return l, nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, v.Err())

		c.Heal()
		c.Leader()
		other := open(t, c.Node(2), config("limits"))
		c.WaitRevision(rate(t, other, 43))
		synctest.Wait()
		require.Equal(t, 43, v.Load().Rate)
	})
}

// A node that has nothing, and finds no cluster, begins with the file; a cluster that has the value
// then wins, whatever its revision.
func TestAStartWithNothingUsesTheFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "limits.json")
	cfg := config("limits")
	cfg.File = name
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		v := open(t, c.Node(0), cfg)
		for i := range 50 {
			rate(t, v, i+1)
		}
		put(t, c.Node(0), "limits", "bad")
		synctest.Wait()
		require.NoError(t, v.SaveErr())
	})
	files, err := os.ReadDir(filepath.Dir(name))
	require.NoError(t, err)
	require.Len(t, files, 1, "nothing else is left there")

	t.Run("no quorum", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, err := coterie.Open(t.Context(), coterie.Config{
				Name: "a", Addr: "a:1", InMemory: true, Network: coterie.NewMemoryNetwork(),
				Founders: []coterie.Founder{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1"}, {Name: "c", Addr: "c:1"}},
			})
			require.NoError(t, err)
			defer n.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			v, err := sharedconfig.Open(ctx, n, cfg)
			require.NoError(t, err)
			defer v.Close()
			require.Equal(t, 50, v.Load().Rate)

			other := cfg
			other.Keys = []string{"others"}
			_, err = sharedconfig.Open(ctx, n, other)
			require.ErrorIs(t, err, context.DeadlineExceeded, "the file is of other keys")
		})
	})
	t.Run("no quorum of another cluster", func(t *testing.T) {
		coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
			for range 200 { // the node has come further than the file
				c.WaitRevision(put(t, c.Node(0), "other", "v"))
			}
			c.Partition([]int{0}, []int{1}, []int{2})
			time.Sleep(10 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			v, err := sharedconfig.Open(ctx, c.Node(1), cfg)
			require.NoError(t, err)
			defer v.Close()
			require.Equal(t, 50, v.Load().Rate)
		})
	})
	t.Run("a bad value", func(t *testing.T) {
		coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
			put(t, c.Node(0), "limits", "bad")
			v := open(t, c.Node(0), cfg)
			require.Equal(t, 50, v.Load().Rate)
			require.Error(t, v.Err())
		})
	})
	t.Run("another cluster", func(t *testing.T) {
		coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
			v := open(t, c.Node(0), cfg)
			require.Equal(t, 100, v.Load().Rate, "it has no value: that is the default")
			rate(t, v, 3)
			v.Close()
			require.Equal(t, 3, open(t, c.Node(0), cfg).Load().Rate)
		})
	})
}

// A node that was cut off has an older value than the file that its process wrote elsewhere.
func TestAStartWithoutAQuorumUsesTheFileThatIsNewer(t *testing.T) {
	cfg := config("limits")
	cfg.File = filepath.Join(t.TempDir(), "limits.json")
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		c.WaitRevision(rate(t, open(t, c.Node(0), config("limits")), 42))
		c.Partition([]int{0}, []int{1, 2})
		time.Sleep(10 * time.Second)
		v := open(t, c.Node(1), cfg)
		rate(t, v, 77)
		v.Close()
		c.Partition([]int{0}, []int{1}, []int{2})
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		v, err := sharedconfig.Open(ctx, c.Node(0), cfg)
		require.NoError(t, err)
		defer v.Close()
		require.Equal(t, 77, v.Load().Rate)
	})
}

func TestAFileThatIsDamagedOrCannotBeWrittenIsNoValue(t *testing.T) {
	dir := t.TempDir()
	cfg := config("limits")
	cfg.File = filepath.Join(dir, "limits.json")
	require.NoError(t, os.WriteFile(cfg.File, []byte(`{"cluster":1,"revision":9,"keys":["limits"],"docu`), 0o600))
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		require.Equal(t, 100, open(t, c.Node(0), cfg).Load().Rate)
		elsewhere := cfg
		elsewhere.File = filepath.Join(dir, "no such directory", "limits.json")
		v := open(t, c.Node(0), elsewhere)
		rate(t, v, 5)
		synctest.Wait()
		require.ErrorIs(t, v.SaveErr(), os.ErrNotExist)
		require.Equal(t, 5, v.Load().Rate)
	})
}

func TestAValueInAFormOfItsOwn(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		cfg := sharedconfig.Config[int]{
			Keys: []string{"n"}, Default: 3, Decode: strconv.Atoi,
			Encode: func(n int) (string, error) { return strconv.Itoa(n), nil },
		}
		v := open(t, c.Node(0), cfg)
		require.Equal(t, 3, v.Load())
		_, err := v.Update(t.Context(), func(n int) (int, error) { return n + 1, nil })
		require.NoError(t, err)
		require.Equal(t, "4", stored(t, c.Node(0), "n"))
		require.Equal(t, 4, v.Load())
		put(t, c.Node(0), "n", "x")
		synctest.Wait()
		require.ErrorIs(t, v.Err(), strconv.ErrSyntax)
		require.Equal(t, 4, v.Load())
	})
}

func TestConfigsThatMakeNoSenseAreRefused(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		for name, cfg := range map[string]sharedconfig.Config[int]{
			"no key":             {},
			"the same key twice": {Keys: []string{"a", "b", "a"}},
			"half a codec":       {Keys: []string{"a"}, Decode: strconv.Atoi},
			"layers of no JSON": {
				Keys: []string{"a", "b"}, Decode: strconv.Atoi,
				Encode: func(n int) (string, error) { return strconv.Itoa(n), nil },
			},
		} {
			_, err := sharedconfig.Open(t.Context(), c.Node(0), cfg)
			require.ErrorIs(t, err, coterie.ErrInvalidOption, name)
		}
		_, err := sharedconfig.Open(t.Context(), c.Node(0), sharedconfig.Config[int]{Keys: []string{""}})
		require.ErrorIs(t, err, coterie.ErrEmptyKey)
	})
}

func TestAValueEndsWithCloseAndWithItsNode(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		v, with := open(t, c.Node(0), config("limits")), open(t, c.Node(0), config("limits"))
		v.Close()
		v.Close()
		rate(t, v, 9)
		synctest.Wait()
		c.Stop(0)
		for _, v := range []*sharedconfig.Value[limits]{v, with} {
			for _, err := range v.Follow(t.Context()) {
				if err != nil {
					require.ErrorIs(t, err, coterie.ErrClosed)
				}
			}
			_, err := v.Update(t.Context(), func(l limits) (limits, error) { return l, nil })
			require.ErrorIs(t, err, coterie.ErrClosed)
			require.Equal(t, 9, v.Load().Rate)
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	n, err := coterie.Open(b.Context(), coterie.Config{InMemory: true})
	require.NoError(b, err)
	defer n.Close()
	v := open(b, n, config("limits"))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if v.Load().Rate != 100 {
				b.Error("not the default")
			}
		}
	})
}

// The keys change at once, and the watch of each finds the one bad value, if at different revisions.
func TestABadValueOfSeveralKeysIsYieldedOnce(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		v := open(t, n, config("a", "b", "c"))
		ctx, cancel := context.WithCancel(t.Context())
		yielded := 0
		go func() {
			for range v.Follow(ctx) {
				yielded++
			}
		}()
		synctest.Wait()
		for range 100 {
			yielded = 0
			var writes sync.WaitGroup
			writes.Go(func() {
				_, err := n.Txn(ctx).Then(coterie.OpPut("a", "bad"), coterie.OpPut("b", "bad"), coterie.OpPut("c", "bad")).Commit()
				if err != nil {
					t.Error(err)
				}
			})
			for range 5 {
				writes.Go(func() { _, _ = n.Put(ctx, "elsewhere", "") })
			}
			writes.Wait()
			synctest.Wait()
			require.Equal(t, 1, yielded)
			require.Error(t, v.Err())
		}
		cancel()
	})
}

// Programs of other versions read it.
func TestWhatIsStoredOfAValue(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		cfg := config("general", "limits")
		cfg.File = filepath.Join(t.TempDir(), "limits.json")
		v := open(t, c.Node(0), cfg)
		first := rate(t, v, 1)
		second := rate(t, v, 2)
		synctest.Wait()
		require.Equal(t, `{"Rate":2}`, stored(t, c.Node(0), "limits"))
		require.Equal(t, `{"Rate":1}`, stored(t, c.Node(0), fmt.Sprintf("limits@%019d", first)))
		file, err := os.ReadFile(cfg.File)
		require.NoError(t, err)
		content := fmt.Sprintf(`{"cluster":%d,"revision":%d,"keys":["general","limits"],"documents":[null,"eyJSYXRlIjoyfQ=="]}`,
			c.Node(0).Status().ClusterID, second)
		crc := crc32.Checksum([]byte(content), crc32.MakeTable(crc32.Castagnoli))
		require.Equal(t, fmt.Sprintf(`{"crc32c":%d,"content":%s}`, crc, content), string(file))
	})
}
