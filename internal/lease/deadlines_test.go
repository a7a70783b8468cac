// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const retry = 5 * time.Second

func after(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }

// verify checks that the map and the queue have the same leases, in heap order.
func verify(t testing.TB, d *Deadlines) {
	t.Helper()
	require.Len(t, d.leases, len(d.queue))
	for i, l := range d.queue {
		require.Equal(t, i, l.place)
		require.Same(t, l, d.leases[l.ID])
		if i > 0 {
			require.False(t, d.queue.Less(i, (i-1)/2))
		}
	}
}

func TestExpireInOrderOfDeadlines(t *testing.T) {
	d := NewDeadlines()
	for id, ttl := range map[int64]time.Duration{1: 30, 2: 10, 3: 20, 4: 10} {
		d.Grant(Lease{id, ttl * time.Second}, start)
	}
	verify(t, d)
	for _, step := range []struct {
		at    float64
		limit int
		want  []int64
	}{
		{0, 10, nil},
		{9.999, 10, nil},
		{10, 1, []int64{2}}, // among equal deadlines the lowest ID
		{10, 10, []int64{4}},
		{10, 10, nil}, // the proposals may still be in progress
		{14.9, 10, nil},
		{15, 10, []int64{2, 4}}, // the proposals seem lost
		{30, 10, []int64{2, 3, 4, 1}},
	} {
		require.Equal(t, step.want, d.Expire(after(step.at), step.limit, retry), "at %v", step.at)
		verify(t, d)
	}
	for id := range int64(4) {
		d.Revoke(id + 1)
	}
	require.Zero(t, d.Len())
	_, ok := d.Next()
	require.False(t, ok)
	require.Empty(t, d.Expire(after(1000), 10, retry))
}

func TestExpireReturnsLeaseOnce(t *testing.T) {
	d := NewDeadlines()
	d.Grant(Lease{1, time.Second}, start)
	require.Equal(t, []int64{1}, d.Expire(after(1), 10, 0))
	require.Empty(t, d.Expire(after(1), 10, 0))
}

func TestNextIsTheEarliest(t *testing.T) {
	d := NewDeadlines()
	d.Grant(Lease{1, 10 * time.Second}, start)
	d.Grant(Lease{2, 20 * time.Second}, start)
	at, ok := d.Next()
	require.True(t, ok)
	require.Equal(t, after(10), at)
	d.Renew(1, after(15))
	at, _ = d.Next()
	require.Equal(t, after(20), at)
	d.Expire(after(20), 1, retry)
	at, _ = d.Next()
	require.Equal(t, after(25), at, "a lost proposal is retried at a wake-up")
}

func TestRenewGivesFullTTL(t *testing.T) {
	d := NewDeadlines()
	d.Grant(Lease{1, 10 * time.Second}, start)
	ttl, ending, ok := d.Renew(1, after(9))
	require.True(t, ok)
	require.False(t, ending)
	require.Equal(t, 10*time.Second, ttl)
	require.Empty(t, d.Expire(after(18.9), 10, retry))
	// The renewal is late, but it comes before the expiry is proposed.
	_, ending, ok = d.Renew(1, after(25))
	require.True(t, ok)
	require.False(t, ending)
	require.Empty(t, d.Expire(after(34.9), 10, retry))
	require.Equal(t, []int64{1}, d.Expire(after(35), 10, retry))
}

func TestT19_UnknownLeaseIsNotFound(t *testing.T) {
	d := NewDeadlines()
	_, ending, ok := d.Renew(1, start)
	require.False(t, ok)
	require.False(t, ending)
	_, _, ok = d.Remaining(1, start)
	require.False(t, ok)
	d.Revoke(1)
}

func TestT21_RenewalWaitsForExpiryOutcome(t *testing.T) {
	for name, c := range map[string]struct {
		outcome func(d *Deadlines)
		found   bool
	}{
		"it has expired": {func(d *Deadlines) { d.Revoke(1) }, false},
		"a new leader":   {func(d *Deadlines) { d.Clear() }, false},
		"leader again":   {func(d *Deadlines) { d.Reset(slices.Values([]Lease{{1, 10 * time.Second}}), after(11)) }, true},
		"expired before a new term": {
			func(d *Deadlines) { d.Reset(slices.Values([]Lease{{2, 10 * time.Second}}), after(11)) }, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDeadlines()
			d.Grant(Lease{1, 10 * time.Second}, start)
			require.Equal(t, []int64{1}, d.Expire(after(10), 10, retry))
			for _, at := range []float64{10.5, 15} {
				d.Expire(after(at), 10, retry)
				_, ending, ok := d.Renew(1, after(at))
				require.True(t, ok)
				require.True(t, ending)
			}
			c.outcome(d)
			ttl, ending, ok := d.Renew(1, after(16))
			require.Equal(t, c.found, ok)
			require.False(t, ending)
			if c.found {
				require.Equal(t, 10*time.Second, ttl)
			}
			verify(t, d)
		})
	}
}

func TestOutcomeBelongsToOneLease(t *testing.T) {
	d := NewDeadlines()
	d.Grant(Lease{1, 10 * time.Second}, start)
	d.Grant(Lease{2, 10 * time.Second}, start)
	d.Expire(after(10), 10, retry)
	d.Revoke(1)
	_, _, ok := d.Renew(1, after(10))
	require.False(t, ok)
	_, ending, _ := d.Renew(2, after(10))
	require.True(t, ending)
}

func TestT20_ResetGivesFullTTL(t *testing.T) {
	d := NewDeadlines()
	d.Grant(Lease{1, 10 * time.Second}, start)
	d.Grant(Lease{9, 10 * time.Second}, start)
	d.Reset(slices.Values([]Lease{{1, 10 * time.Second}, {2, 30 * time.Second}}), after(9))
	require.Equal(t, 2, d.Len())
	require.Empty(t, d.Expire(after(18.9), 10, retry), "the lease outlives its TTL")
	require.Equal(t, []int64{1}, d.Expire(after(19), 10, retry))
	d.Revoke(1)
	require.Equal(t, []int64{2}, d.Expire(after(39), 10, retry))
	verify(t, d)
}

func TestRemaining(t *testing.T) {
	d := NewDeadlines()
	d.Grant(Lease{1, 10 * time.Second}, start)
	for at, want := range map[float64]time.Duration{0: 10 * time.Second, 4: 6 * time.Second, 10: 0, 15: 0} {
		ttl, left, ok := d.Remaining(1, after(at))
		require.True(t, ok)
		require.Equal(t, 10*time.Second, ttl)
		require.Equal(t, want, left, "at %v", at)
	}
	d.Expire(after(10), 10, retry)
	_, left, ok := d.Remaining(1, after(10))
	require.True(t, ok)
	require.Zero(t, left, "the time until the next attempt does not count")
}

func TestLongestTTLDoesNotOverflow(t *testing.T) {
	d := NewDeadlines()
	d.Grant(Lease{1, 9_000_000_000 * time.Second}, start)
	d.Grant(Lease{2, time.Second}, start)
	require.Equal(t, []int64{2}, d.Expire(after(100), 10, time.Hour))
	_, left, _ := d.Remaining(1, start)
	require.Equal(t, 9_000_000_000*time.Second, left)
}

func TestManyLeases(t *testing.T) {
	const many = 100_000
	d := NewDeadlines()
	for id := range int64(many) {
		d.Grant(Lease{id + 1, time.Duration(1+id*7919%many) * time.Millisecond}, start)
	}
	// Every second lease is renewed in time, again and again.
	for id := int64(2); id <= many; id += 2 {
		_, _, ok := d.Renew(id, start)
		require.True(t, ok)
		d.Renew(id, after(200))
	}
	var last time.Duration
	expired := 0
	for ids := d.Expire(after(150), 1000, time.Hour); len(ids) > 0; ids = d.Expire(after(150), 1000, time.Hour) {
		require.LessOrEqual(t, len(ids), 1000)
		for _, id := range ids {
			require.Equal(t, int64(1), id%2)
			ttl, _, _ := d.Remaining(id, start)
			require.GreaterOrEqual(t, ttl, last)
			last = ttl
			expired++
			d.Revoke(id)
		}
	}
	require.Equal(t, many/2, expired)
	require.Equal(t, many/2, d.Len())
	verify(t, d)
}

func BenchmarkRenew(b *testing.B) {
	const many = 100_000
	d := NewDeadlines()
	for id := range int64(many) {
		d.Grant(Lease{id, 10 * time.Second}, start)
	}
	now := start
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now = now.Add(time.Microsecond)
		d.Renew(int64(i*7919%many), now)
	}
}

// All leases have the same deadline and are renewed before it, as after a change of leader.
func TestRenewalsMoveAFewLeasesAtOnce(t *testing.T) {
	d := NewDeadlines()
	const leases = 10 * maxMoves
	for id := range int64(leases) {
		d.Grant(Lease{id + 1, 10 * time.Second}, start)
	}
	for id := range int64(leases) {
		d.Renew(id+1, after(5))
	}
	calls := 0
	for at, _ := d.Next(); at.Before(after(15)); at, _ = d.Next() {
		calls++
		require.Equal(t, after(10), at)
		require.Empty(t, d.Expire(after(10), leases, retry))
	}
	verify(t, d)
	require.Positive(t, calls)
	require.LessOrEqual(t, calls, leases/maxMoves)
	require.Len(t, d.Expire(after(15), leases, retry), leases)
}
