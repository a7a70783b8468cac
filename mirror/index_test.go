// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/mirror"
)

// number decodes a number.
func number(kv coterie.KeyValue) (int, error) { return strconv.Atoi(kv.Value) }

// digits groups numbers by their digits.
func digits(v int) []string { return strings.Split(strconv.Itoa(v), "") }

func put(t testing.TB, n *coterie.Node, key, val string) int64 {
	t.Helper()
	r, err := n.Put(t.Context(), key, val)
	require.NoError(t, err)
	return r.Revision
}

// index makes an index and closes it at the end of the test.
func index(t *testing.T, n *coterie.Node, by ...*mirror.Grouping[int]) *mirror.Index[int] {
	t.Helper()
	x, err := mirror.New(t.Context(), n, "m/", number, by...)
	require.NoError(t, err)
	t.Cleanup(x.Close)
	return x
}

func wait(t testing.TB, x *mirror.Index[int], rev int64) mirror.Snapshot[int] {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, x.WaitRevision(ctx, rev))
	return x.Snapshot()
}

// check compares a snapshot with the prefix in the store at its revision, and its groups with a walk.
func check(t testing.TB, n *coterie.Node, s mirror.Snapshot[int], by *mirror.Grouping[int]) {
	t.Helper()
	r, err := n.Get(t.Context(), "m/", coterie.WithPrefix(), coterie.WithRevision(s.Revision()))
	if errors.Is(err, coterie.ErrCompacted) {
		return
	}
	require.NoError(t, err)
	want, groups := map[string]int{}, map[string]map[string]int{}
	for _, kv := range r.KVs {
		v, err := number(kv)
		require.NoError(t, err)
		want[kv.Key] = v
		for _, d := range digits(v) {
			if groups[d] == nil {
				groups[d] = map[string]int{}
			}
			groups[d][kv.Key] = v
		}
		require.Equal(t, kv.ModRevision, s.Entry(kv.Key).Revision, "%s at %d, compacted %d", kv.Key, s.Revision(), n.Status().CompactRevision)
	}
	require.Equal(t, want, maps.Collect(s.All()), "at revision %d", s.Revision())
	require.Equal(t, len(want), s.Len())
	for d := range 10 {
		found := maps.Collect(s.Group(by, strconv.Itoa(d)))
		if len(found) == 0 {
			found = nil
		}
		require.Equal(t, groups[strconv.Itoa(d)], found, "digit %d", d)
	}
}

func TestIndexFollowsThePrefix(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		put(t, n, "m/a", "12")
		put(t, n, "other", "x")
		by := mirror.GroupBy(digits)
		x := index(t, n, by)
		v, ok := x.Get("m/a")
		require.True(t, ok)
		require.Equal(t, 12, v)
		_, ok = x.Get("other")
		require.False(t, ok)
		before := x.Snapshot()
		s := wait(t, x, put(t, n, "m/b", "22"))
		require.Equal(t, map[string]int{"m/a": 12, "m/b": 22}, maps.Collect(s.Group(by, "2")))
		require.Equal(t, map[string]int{"m/a": 12}, maps.Collect(s.Group(by, "1")))
		require.Empty(t, maps.Collect(s.Group(by, "3")))
		require.Empty(t, maps.Collect(s.Group(mirror.GroupBy(digits), "2")), "a Grouping that New did not get")
		r, err := n.Txn(t.Context()).Then(coterie.OpDelete("m/a"), coterie.OpPut("m/b", "31")).Commit()
		require.NoError(t, err)
		s = wait(t, x, r.Revision)
		require.Equal(t, r.Revision, s.Revision())
		require.Equal(t, map[string]int{"m/b": 31}, maps.Collect(s.Group(by, "3")))
		require.Empty(t, maps.Collect(s.Group(by, "2")))
		require.Equal(t, 1, before.Len(), "a snapshot does not change")
		changes := map[string]string{}
		for c := range s.ChangesSince(before) {
			changes[c.Key] = fmt.Sprint(c.Old != nil, c.New != nil)
		}
		require.Equal(t, map[string]string{"m/a": "true false", "m/b": "false true"}, changes)
		require.Len(t, slices.Collect(s.ChangesSince(mirror.Snapshot[int]{})), 1)
		_, ok = mirror.Snapshot[int]{}.Get("m/a")
		require.False(t, ok)
	})
}

func TestUndecodableValueKeepsTheLastOne(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		good := put(t, n, "m/a", "1")
		x := index(t, n)
		put(t, n, "m/never", "bad")
		bad := put(t, n, "m/a", "worse")
		s := wait(t, x, bad)
		require.Equal(t, map[string]int{"m/a": 1}, maps.Collect(s.All()))
		require.Equal(t, good, s.Entry("m/a").Revision)
		faults := map[string]int64{}
		for f := range s.DecodeErrors() {
			require.ErrorIs(t, f, strconv.ErrSyntax)
			require.ErrorContains(t, f, f.Key)
			faults[f.Key] = f.Revision
		}
		require.Equal(t, map[string]int64{"m/a": bad, "m/never": bad - 1}, faults)
		wait(t, x, put(t, n, "other", "")) // it works in spite of decode errors

		s = wait(t, x, put(t, n, "m/a", "2"))
		require.Equal(t, map[string]int{"m/a": 2}, maps.Collect(s.All()))
		require.Len(t, slices.Collect(s.DecodeErrors()), 1)
		d, err := n.Delete(t.Context(), "m/never")
		require.NoError(t, err)
		s = wait(t, x, d.Revision)
		require.Empty(t, slices.Collect(s.DecodeErrors()))
	})
}

// One bad value must not end every program that mirrors it.
func TestDecoderPanicIsADecodeError(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		put(t, n, "m/before", "decode")
		picky := func(kv coterie.KeyValue) (string, error) {
			if kv.Value == "decode" {
				panic("no such kind")
			}
			return kv.Value, nil
		}
		x, err := mirror.New(t.Context(), n, "m/", picky, mirror.GroupBy(func(v string) []string {
			if v == "key" {
				panic("no such key")
			}
			return []string{v}
		}))
		require.NoError(t, err)
		put(t, n, "m/decode", "decode")
		put(t, n, "m/key", "key")
		require.NoError(t, x.WaitRevision(t.Context(), put(t, n, "m/good", "good")))
		faults := map[string]string{}
		for fault := range x.Snapshot().DecodeErrors() {
			faults[fault.Key] = fault.Err.Error()
		}
		require.Equal(t, map[string]string{
			"m/before": "panic: no such kind", "m/decode": "panic: no such kind", "m/key": "panic: no such key",
		}, faults)
		require.Equal(t, 1, x.Snapshot().Len())
		x.Close()
	})
}

func TestNewRejectsNilFunctions(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		_, err := mirror.New[int](t.Context(), c.Node(0), "m/", nil)
		require.ErrorIs(t, err, coterie.ErrInvalidOption)
		for _, by := range []*mirror.Grouping[int]{nil, {}, mirror.GroupBy[int](nil)} {
			_, err := mirror.New(t.Context(), c.Node(0), "m/", number, by)
			require.ErrorIs(t, err, coterie.ErrInvalidOption)
		}
	})
}

func TestWaitRevision(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		x := index(t, c.Follower())
		s := wait(t, x, put(t, c.Leader(), "m/a", "1"))
		require.Equal(t, 1, s.Len())
		rev := put(t, c.Leader(), "elsewhere", "v")
		s = wait(t, x, rev)
		require.Less(t, s.Revision(), rev, "the prefix has not changed")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, x.WaitRevision(ctx, rev+1), context.DeadlineExceeded)
	})
}

// WaitRevision waits for an index that is behind, also if no key is newer than its snapshot.
func TestWaitRevisionOfSlowIndex(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		put(t, n, "m/a", "1")
		put(t, n, "m/b", "2")
		gate := make(chan struct{})
		open := sync.OnceFunc(func() { close(gate) })
		x, err := mirror.New(t.Context(), n, "m/", func(kv coterie.KeyValue) (int, error) {
			if kv.Value == "0" {
				<-gate
			}
			return number(kv)
		})
		require.NoError(t, err)
		defer func() { open(); x.Close() }()
		behind := func(rev int64) {
			t.Helper()
			short, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			require.ErrorIs(t, x.WaitRevision(short, rev), context.DeadlineExceeded)
		}
		behind(put(t, n, "m/a", "0"))
		r, err := n.Delete(t.Context(), "m/a") // now no key in the store is newer than the snapshot
		require.NoError(t, err)
		behind(r.Revision)
		open()
		require.Equal(t, map[string]int{"m/b": 2}, maps.Collect(wait(t, x, r.Revision).All()))
	})
}

func TestFollowYieldsNewestSnapshot(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		x := index(t, n)
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		reason := errors.New("enough")
		seen := mirror.Snapshot[int]{}
		for s, err := range x.Follow(ctx) {
			if err != nil {
				require.ErrorIs(t, err, reason)
				break
			}
			require.GreaterOrEqual(t, s.Revision(), seen.Revision())
			seen = s
			switch s.Len() {
			case 0: // the loop is slower than the writes
				put(t, n, "m/a", "1")
				wait(t, x, put(t, n, "m/b", "2"))
			case 2:
				cancel(reason)
			default:
				t.Fatalf("%d keys", s.Len())
			}
		}
		require.Equal(t, 2, seen.Len())
		require.NoError(t, x.Err())
		c.Stop(0)
		<-x.Done()
		require.ErrorIs(t, x.Err(), coterie.ErrClosed)
		require.EqualError(t, x.Err(), "coterie: closed: the node is closed")
		for _, err := range x.Follow(t.Context()) {
			if err != nil {
				require.ErrorIs(t, err, coterie.ErrClosed)
			}
		}
		require.Equal(t, 2, x.Snapshot().Len(), "the newest snapshot stays")
	})
}

// Each of many concurrent waits ends, whether its write touched the prefix or not, and although compactions end
// the watch.
func TestWaitRevisionDuringCompactions(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		x, err := mirror.New(t.Context(), n, "m/", func(kv coterie.KeyValue) (int, error) {
			time.Sleep(time.Millisecond) // slower than the writes
			return number(kv)
		})
		require.NoError(t, err)
		defer x.Close()
		var waits sync.WaitGroup
		for i := range 200 {
			key := []string{"m/a", "m/b", "elsewhere", "elsewhere"}[i%4]
			rev := put(t, n, key, strconv.Itoa(i))
			waits.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := x.WaitRevision(ctx, rev); err != nil {
					t.Error(rev, err)
				}
				if v, _ := x.Get(key); key != "elsewhere" && v < i {
					t.Errorf("%s is %d, not %d or later", key, v, i)
				}
			})
			if i%10 == 0 {
				_, err := n.Compact(t.Context(), rev)
				require.NoError(t, err)
			}
		}
		waits.Wait()
	})
}

// A ctx bounds New alone. Close and the node end the index, and the newest snapshot stays.
func TestIndexOutlivesItsContext(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		reason := errors.New("stop")
		ended, end := context.WithCancelCause(t.Context())
		end(reason)
		watchers := n.Status().Watchers
		_, err := mirror.New(ended, n, "m/", number)
		require.ErrorIs(t, err, reason)
		synctest.Wait()
		require.Equal(t, watchers, n.Status().Watchers)

		ctx, cancel := context.WithCancel(t.Context())
		x, err := mirror.New(ctx, n, "m/", number)
		require.NoError(t, err)
		cancel()
		time.Sleep(time.Minute)
		require.Equal(t, 1, wait(t, x, put(t, n, "m/a", "1")).Len())
		require.NoError(t, x.Err())
		x.Close()
		x.Close()
		require.ErrorIs(t, x.Err(), coterie.ErrClosed)
		require.EqualError(t, x.Err(), "mirror: the index is closed: coterie: closed")
		put(t, n, "m/b", "2")
		synctest.Wait()
		require.Equal(t, watchers, n.Status().Watchers)
		require.Equal(t, 1, x.Snapshot().Len(), "the newest snapshot stays")
	})
}

// Each snapshot of an index equals the prefix at its revision: through crashes of leaders, partitions,
// compactions, and installed snapshots.
func TestIndexEqualsPrefixAtRevision(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		seed := rand.Uint64()
		t.Log("seed", seed)
		random := rand.New(rand.NewPCG(seed, 0))
		by := mirror.GroupBy(digits)
		indexes := make([]*mirror.Index[int], 3)
		for i := range indexes {
			indexes[i] = index(t, c.Node(i), by)
		}
		last := int64(0)
		write := func() {
			leader := c.Leader()
			for range 20 + random.IntN(30) {
				var ops []coterie.Op
				for _, k := range random.Perm(40)[:1+random.IntN(3)] {
					key := fmt.Sprint("m/", k)
					if random.IntN(3) == 0 {
						ops = append(ops, coterie.OpDelete(key))
					} else {
						ops = append(ops, coterie.OpPut(key, strconv.Itoa(random.IntN(1000))))
					}
				}
				r, err := leader.Txn(t.Context()).Then(ops...).Commit()
				require.NoError(t, err)
				last = r.Revision
			}
		}
		checks := 0
		for range 12 {
			victim := random.IntN(3)
			alone := []int{victim}
			others := []int{(victim + 1) % 3, (victim + 2) % 3}
			fault := random.IntN(3)
			switch fault {
			case 0:
				c.Crash(victim)
			case 1:
				c.Partition(alone, others)
			}
			if fault == 1 { // a leader that is cut off notices that only later
				time.Sleep(5 * time.Second)
			}
			write()
			if random.IntN(2) == 0 { // the others cannot get the missed revisions any more
				_, err := c.Leader().Compact(t.Context(), last)
				require.NoError(t, err)
			}
			if fault == 0 {
				c.Restart(victim)
				<-indexes[victim].Done()
				indexes[victim] = index(t, c.Node(victim), by)
			}
			c.Heal()
			write()
			for i, x := range indexes {
				check(t, c.Node(i), x.Snapshot(), by) // the snapshot of this moment
				s := wait(t, x, last)
				check(t, c.Node(i), s, by)
				checks++
			}
		}
		require.Equal(t, 36, checks)
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.SnapshotEntries = 60 }))
}

// If a compaction removes revisions that a slow index has not read, the index reads the prefix again.
func TestIndexReadsAgainAfterCompaction(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		gate := make(chan struct{})
		slow := func(kv coterie.KeyValue) (int, error) {
			if kv.Value == "0" {
				<-gate
			}
			return number(kv)
		}
		for key, val := range map[string]string{"m/stays": "5", "m/goes": "6", "m/breaks": "7", "m/never": "bad"} {
			put(t, n, key, val)
		}
		x, err := mirror.New(t.Context(), n, "m/", slow)
		require.NoError(t, err)
		defer x.Close()
		stays := x.Snapshot().Entry("m/stays")
		put(t, n, "m/a", "0")
		time.Sleep(time.Second)
		put(t, n, "m/breaks", "bad")
		for _, key := range []string{"m/goes", "m/never"} {
			_, err = n.Delete(t.Context(), key)
			require.NoError(t, err)
		}
		last := put(t, n, "m/b", "8")
		_, err = n.Compact(t.Context(), last)
		require.NoError(t, err)
		require.Equal(t, 3, x.Snapshot().Len(), "a decoder that blocks does not block lookups")
		close(gate)
		s := wait(t, x, last)
		require.Equal(t, map[string]int{"m/stays": 5, "m/breaks": 7, "m/a": 0, "m/b": 8}, maps.Collect(s.All()))
		faults := slices.Collect(s.DecodeErrors())
		require.Len(t, faults, 1)
		require.Equal(t, "m/breaks", faults[0].Key)
		require.Same(t, stays, s.Entry("m/stays"), "an unchanged value is not decoded again")
	})
}

// Two keys that are always written together are equal in each snapshot.
func TestReadersSeeWholeRevisions(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		x := index(t, n)
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for {
					s := x.Snapshot()
					a, _ := s.Get("m/a")
					b, _ := s.Get("m/b")
					if a != b {
						t.Errorf("%d and %d", a, b)
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		for i := range 200 {
			v := strconv.Itoa(i)
			r, err := n.Txn(t.Context()).Then(coterie.OpPut("m/a", v), coterie.OpPut("m/b", v)).Commit()
			require.NoError(t, err)
			wait(t, x, r.Revision)
		}
		close(stop)
		readers.Wait()
	})
}

const many = 100_000

// benchmark makes an index of size keys, and returns the keys in random order.
func benchmark(b *testing.B, size int) (*coterie.Node, *mirror.Index[int], []string) {
	n, err := coterie.Open(b.Context(), coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	b.Cleanup(func() { n.Close() })
	keys := make([]string, size)
	for i := 0; i < size; i += 100 {
		var ops []coterie.Op
		for j := i; j < i+100; j++ {
			keys[j] = fmt.Sprintf("m/key-%06d", j)
			ops = append(ops, coterie.OpPut(keys[j], strconv.Itoa(j)))
		}
		_, err := n.Txn(b.Context()).Then(ops...).Commit()
		require.NoError(b, err)
	}
	x, err := mirror.New(b.Context(), n, "m/", number)
	require.NoError(b, err)
	rand.Shuffle(size, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	b.ResetTimer()
	return n, x, keys
}

// BenchmarkGet looks up random keys in an index and in two maps of Go, which have no snapshots. A large index
// waits for memory, so compare within one run, with -cpu 1.
func BenchmarkGet(b *testing.B) {
	for _, size := range []int{100, 1000, 10_000, many} {
		_, x, keys := benchmark(b, size)
		var mu sync.RWMutex
		locked := map[string]int{}
		var concurrent sync.Map
		for key, v := range x.Snapshot().All() {
			locked[strings.Clone(key)] = v
			concurrent.Store(strings.Clone(key), v)
		}
		for name, get := range map[string]func(key string) (int, bool){
			"index": x.Get,
			"map under a lock": func(key string) (int, bool) {
				mu.RLock()
				defer mu.RUnlock()
				v, ok := locked[key]
				return v, ok
			},
			"sync.Map": func(key string) (int, bool) {
				v, ok := concurrent.Load(key)
				return v.(int), ok
			},
		} {
			b.Run(fmt.Sprintf("%d keys/%s", size, name), func(b *testing.B) {
				b.RunParallel(func(pb *testing.PB) {
					for i := rand.IntN(size); pb.Next(); i++ {
						if _, ok := get(keys[i%size]); !ok {
							b.Error("not found")
						}
					}
				})
			})
		}
	}
}

func BenchmarkGetDuringWrites(b *testing.B) {
	n, x, keys := benchmark(b, many)
	ctx, cancel := context.WithCancel(b.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = n.Put(ctx, keys[i%many], "1")
		}
	})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(many); pb.Next(); i++ {
			x.Get(keys[i%many])
		}
	})
	cancel()
	writer.Wait()
}

// BenchmarkPut measures the time from a Put until an index of 100,000 keys has the write.
func BenchmarkPut(b *testing.B) {
	n, x, keys := benchmark(b, many)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r, err := n.Put(b.Context(), keys[i%many], "1")
		require.NoError(b, err)
		require.NoError(b, x.WaitRevision(b.Context(), r.Revision))
	}
}

// BenchmarkWaitRevisionElsewhere measures the time from a Put outside the prefix until WaitRevision knows that
// an index of 100,000 keys has nothing to apply.
func BenchmarkWaitRevisionElsewhere(b *testing.B) {
	n, x, _ := benchmark(b, many)
	b.ReportAllocs()
	for b.Loop() {
		r, err := n.Put(b.Context(), "elsewhere", "1")
		require.NoError(b, err)
		require.NoError(b, x.WaitRevision(b.Context(), r.Revision))
	}
}

func BenchmarkNew(b *testing.B) {
	n, _, _ := benchmark(b, many)
	for b.Loop() {
		_, err := mirror.New(b.Context(), n, "m/", number)
		require.NoError(b, err)
	}
}
