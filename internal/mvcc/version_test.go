// SPDX-License-Identifier: Apache-2.0

package mvcc

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVersionsRoundTrip(t *testing.T) {
	lengths := []int{0, 1, 127, 128, 300, 20_000}
	numbers := []int64{1, 127, 128, 1 << 21, math.MaxInt64}
	for _, key := range lengths[1:] {
		for _, value := range lengths {
			kv := KeyValue{
				Key: strings.Repeat("k", key), Value: strings.Repeat("v", value), CreateRevision: numbers[rand.IntN(4)],
				Version: numbers[rand.IntN(5)], Lease: rand.Int64() - rand.Int64(),
			}
			kv.ModRevision = kv.CreateRevision + rand.Int64N(1<<40)
			v := newVersion(&kv, links{})
			require.Equal(t, kv, v.keyValue())
			require.Equal(t, kv.Key, v.key())
			require.Equal(t, kv.ModRevision, v.modRevision())
			require.False(t, v.deleted())
			require.Equal(t, kv.bytes(), v.bytes())

			tombstone := newVersion(&KeyValue{Key: kv.Key, ModRevision: kv.ModRevision}, links{})
			require.Equal(t, KeyValue{Key: kv.Key, ModRevision: kv.ModRevision}, tombstone.keyValue())
			require.True(t, tombstone.deleted())
		}
	}
}

func TestVersionWithExtremeNumbers(t *testing.T) {
	for _, kv := range []KeyValue{
		{Key: "k", CreateRevision: math.MinInt64, ModRevision: math.MaxInt64, Version: math.MaxInt64, Lease: math.MinInt64},
		{Key: "k", CreateRevision: 1, ModRevision: 1, Version: 1, Lease: -1},
	} {
		require.Equal(t, kv, newVersion(&kv, links{}).keyValue())
	}
}

func TestVersionCopiesItsStrings(t *testing.T) {
	b := []byte("keyvalue")
	v := newVersion(&KeyValue{Key: string(b[:3]), Value: string(b[3:]), CreateRevision: 1, ModRevision: 1, Version: 1}, links{})
	clear(b)
	require.Equal(t, "key", v.key())
	require.Equal(t, "value", v.keyValue().Value)
}

func TestVersionsAreOrdered(t *testing.T) {
	v := newVersion(&KeyValue{Key: "b", CreateRevision: 5, ModRevision: 5, Version: 1}, links{})
	require.True(t, v.before("c", 0))
	require.True(t, v.before("b\x00", 0))
	require.True(t, v.before("b", 6))
	require.False(t, v.before("b", 5))
	require.False(t, v.before("a", 6))
	require.False(t, v.before("", 0))
}

// The bound on memory per key depends on the size class of the block.
func TestVersionOfYoungKeyIsSmall(t *testing.T) {
	kv := KeyValue{Key: strings.Repeat("k", 20), Value: strings.Repeat("v", 256), CreateRevision: 1 << 34, ModRevision: 1 << 34, Version: 1}
	blocks := 0.0
	require.EqualValues(t, 1, testing.AllocsPerRun(100, func() { blocks += float64(len(newVersion(&kv, links{}).key())) }))
	perBlock := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			newVersion(&kv, links{})
		}
	}).AllocedBytesPerOp()
	require.LessOrEqual(t, perBlock, int64(288))
}
