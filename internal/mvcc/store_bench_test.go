// SPDX-License-Identifier: Apache-2.0

package mvcc_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"

	"github.com/coterie-kv/coterie/internal/mvcc"
)

var benchValue = strings.Repeat("v", 256)

// A sequence names keys: the i-th of many, in ascending order or at random.
type sequence func(i int) string

func ascending(i int) string { return fmt.Sprintf("key-%08d", i) }
func shuffled(i int) string  { return fmt.Sprintf("key-%08d", uint32(i)*2654435761) }

// prefixed keys have 33 bytes in common.
func prefixed(i int) string { return "/registry/services/namespace/" + shuffled(i) }

var sequences = map[string]sequence{"ascending": ascending, "shuffled": shuffled}

// keysOf returns n keys from the i-th on.
func keysOf(s sequence, from, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = s(from + i)
	}
	return keys
}

// holding returns a store with n keys.
func holding(s sequence, n int) *mvcc.Store {
	store := mvcc.New()
	for i := range n {
		store.Put(s(i), benchValue, 0)
		store.Commit()
		if i%1000 == 0 {
			store.View()
		}
	}
	return store
}

var sizes = []int{1_000, 100_000, 1_000_000}

// BenchmarkPut puts new keys into a store that already has keys. Each batch of puts publishes a view.
func BenchmarkPut(b *testing.B) {
	for _, size := range sizes {
		for name, s := range sequences {
			for _, batch := range []int{1, 32, 1000} {
				b.Run(fmt.Sprintf("%s/keys=%d/batch=%d", name, size, batch), func(b *testing.B) {
					benchmarkPuts(b, holding(s, size), keysOf(s, size, b.N), batch)
				})
			}
		}
	}
}

// BenchmarkOverwrite puts keys that exist.
func BenchmarkOverwrite(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprintf("keys=%d", size), func(b *testing.B) {
			keys := make([]string, b.N)
			for i := range keys {
				keys[i] = shuffled(rand.IntN(size))
			}
			benchmarkPuts(b, holding(shuffled, size), keys, 1000)
		})
	}
}

func benchmarkPuts(b *testing.B, store *mvcc.Store, keys []string, batch int) {
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	for i, key := range keys {
		if i%mvcc.WarmAtOnce == 0 { // as the state does for the puts of an entry
			store.Warm(keys[i:min(i+mvcc.WarmAtOnce, i-i%batch+batch, len(keys))])
		}
		store.Put(key, benchValue, 0)
		store.Commit()
		if i%batch == 0 {
			store.View()
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range sizes {
		for name, s := range map[string]sequence{"shuffled": shuffled, "prefixed": prefixed} {
			b.Run(fmt.Sprintf("%s/keys=%d", name, size), func(b *testing.B) {
				view := holding(s, size).View()
				keys := make([]string, 1<<16)
				for i := range keys {
					keys[i] = s(rand.IntN(size))
				}
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					view.Get(keys[i%len(keys)], 0)
				}
			})
		}
	}
}

func BenchmarkRangeOf1000(b *testing.B) {
	view := holding(shuffled, 100_000).View()
	b.ReportAllocs()
	for b.Loop() {
		left := 1000
		view.Ascend("key-1", "\x00", 0, func(mvcc.KeyValue) bool {
			left--
			return left > 0
		})
	}
}

func BenchmarkCount(b *testing.B) {
	view := holding(shuffled, 1_000_000).View()
	b.ReportAllocs()
	for b.Loop() {
		view.Count("key-1", "key-3")
	}
}

// BenchmarkCompact compacts half of a history of 200,000 puts to 10,000 keys. ns/op is per put.
func BenchmarkCompact(b *testing.B) {
	const puts = 200_000
	for done := 0; done < b.N; done += puts / 2 {
		b.StopTimer()
		store := mvcc.New()
		for range puts {
			store.Put(shuffled(rand.IntN(10_000)), benchValue, 0)
			store.Commit()
		}
		b.StartTimer()
		if err := store.Compact(puts / 2); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOverwriteAndCompact puts keys that exist, of which the history has few, and compacts it.
func BenchmarkOverwriteAndCompact(b *testing.B) {
	const size, every = 1_000_000, 10_000
	store := holding(shuffled, size)
	_ = store.Compact(store.Revision())
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		store.Put(shuffled(rand.IntN(size)), benchValue, 0)
		store.Commit()
		if i%every == every-1 {
			if err := store.Compact(store.Revision() - every/2); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkLoad restores a store, from its base or from its history. ns/op is per version.
func BenchmarkLoad(b *testing.B) {
	const size = 1_000_000
	for name, s := range sequences {
		for _, from := range []string{"base", "history"} {
			b.Run(name+"/"+from, func(b *testing.B) {
				store := holding(s, size)
				if from == "base" {
					_ = store.Compact(store.Revision())
				}
				var all []mvcc.KeyValue
				view := store.View()
				view.Base(func(kv mvcc.KeyValue) bool { all = append(all, kv); return true })
				view.Changes(0, view.Revision(), func(_ int64, changes []mvcc.KeyValue) bool { all = append(all, changes...); return true })
				b.ReportAllocs()
				b.ResetTimer()
				for done := 0; done < b.N; done += size {
					l := mvcc.NewLoader(view.Revision(), view.CompactRevision())
					for i := range all {
						if err := l.Add(all[i]); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

var collectKeys = flag.Int("keys", 1_000_000, "keys in memory of BenchmarkCollect")

// BenchmarkCollect collects garbage with many keys in memory.
func BenchmarkCollect(b *testing.B) {
	store := holding(shuffled, *collectKeys)
	cpu := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	runtime.GC()
	metrics.Read(cpu)
	before := cpu[0].Value.Float64()
	b.ResetTimer()
	for range b.N {
		runtime.GC()
	}
	metrics.Read(cpu)
	b.ReportMetric(1000*(cpu[0].Value.Float64()-before)/float64(b.N), "gc-cpu-ms/op")
	runtime.KeepAlive(store)
}
