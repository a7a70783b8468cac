// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// The buckets of a histogram: each power of two from 2^fineBits to 2^maxBits ns has 2^fineBits buckets of equal width,
// so a duration is known to 1.6 %.
const (
	fineBits = 6
	maxBits  = 40 // 18 minutes
	buckets  = (maxBits - fineBits + 1) << fineBits
)

// shards is the number of parts of a histogram, so that callers rarely write the same cache line.
const shards = 16

// A histogram counts durations. It has a constant size, so that its use neither allocates nor grows with the number of
// operations. Its methods may be called concurrently.
type histogram struct {
	shards [shards]struct {
		counts  [buckets]atomic.Uint32
		untimed atomic.Int64 // operations that counts lacks
		sum     atomic.Int64
		max     atomic.Int64
		_       [64]byte
	}
}

// add counts a duration of a caller.
func (h *histogram) add(caller int, d time.Duration) {
	s := &h.shards[caller%shards]
	s.counts[bucket(d)].Add(1)
	s.sum.Add(int64(d))
	for {
		old := s.max.Load()
		if int64(d) <= old || s.max.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// addTogether counts n operations of a caller, which took d together. They count for the mean alone.
func (h *histogram) addTogether(caller, n int, d time.Duration) {
	s := &h.shards[caller%shards]
	s.untimed.Add(int64(n))
	s.sum.Add(int64(d))
}

// bucket returns the index of the bucket of a duration.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<fineBits {
		return int(v)
	}
	if v >= 1<<maxBits {
		return buckets - 1
	}
	shift := bits.Len64(v) - 1 - fineBits
	return (shift+1)<<fineBits + int(v>>shift) - 1<<fineBits
}

// middle returns the duration in the middle of a bucket.
func middle(bucket int) time.Duration {
	if bucket < 1<<fineBits {
		return time.Duration(bucket)
	}
	shift := bucket>>fineBits - 1
	least := uint64(bucket&(1<<fineBits-1)+1<<fineBits) << shift
	return time.Duration(least + 1<<shift/2)
}

// summary returns the number of operations and their latency.
func (h *histogram) summary() (n int64, l Latency) {
	var counts [buckets]int64
	var timed, sum int64
	for i := range h.shards {
		s := &h.shards[i]
		for b := range s.counts {
			c := int64(s.counts[b].Load())
			counts[b] += c
			timed += c
		}
		n += s.untimed.Load()
		sum += s.sum.Load()
		l.Max = max(l.Max, time.Duration(s.max.Load()))
	}
	if n += timed; n == 0 {
		return 0, l
	}
	l.Mean = time.Duration(sum / n)
	at := func(share float64) time.Duration {
		rank := int64(share * float64(timed-1))
		for b, c := range counts {
			if rank -= c; rank < 0 {
				return min(middle(b), l.Max)
			}
		}
		return l.Max
	}
	l.P50, l.P99, l.P999 = at(0.5), at(0.99), at(0.999)
	return n, l
}
