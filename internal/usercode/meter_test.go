// SPDX-License-Identifier: Apache-2.0

package usercode_test

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/usercode"
)

// A sink is the Metrics of a user.
type sink struct {
	mu       sync.Mutex // guards the fields below
	counters map[string]float64
	gauges   map[string]float64
	observed map[string][]float64
	panicked []string
	before   func()             // called before each value is kept
	now      map[string]float64 // the gauges of the node
}

func (s *sink) keep(fn func()) {
	s.mu.Lock()
	before := s.before
	s.mu.Unlock()
	if before != nil {
		before()
	}
	s.change(fn)
}

// change calls fn under the lock.
func (s *sink) change(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

func (s *sink) keptCounters() (c map[string]float64) {
	s.change(func() { c = maps.Clone(s.counters) })
	return c
}

func (s *sink) keptGauges() (g map[string]float64) {
	s.change(func() { g = maps.Clone(s.gauges) })
	return g
}

func (s *sink) keptObserved() (o map[string][]float64) {
	s.change(func() { o = maps.Clone(s.observed) })
	return o
}

func (s *sink) Add(m string, delta float64) { s.keep(func() { s.counters[m] += delta }) }

func (s *sink) Set(m string, value float64) { s.keep(func() { s.gauges[m] = value }) }

func (s *sink) Observe(m string, value float64) {
	s.keep(func() { s.observed[m] = append(s.observed[m], value) })
}

// newMeter returns a Meter that Run was not called for, and its user's Metrics.
func newMeter() (*usercode.Meter[string], *sink) {
	s := &sink{
		counters: map[string]float64{}, gauges: map[string]float64{}, observed: map[string][]float64{},
		now: map[string]float64{},
	}
	return usercode.NewMeter(usercode.MeterConfig[string]{
		To: s, Dropped: "dropped",
		Gauges: func() (now map[string]float64) {
			s.change(func() { now = maps.Clone(s.now) })
			return now
		},
		Panicked: func(of string, cause any, leftOut int) {
			s.change(func() { s.panicked = append(s.panicked, fmt.Sprint(of, " ", cause, " ", leftOut)) })
		},
	}), s
}

func TestMeterDeliversEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := newMeter()
		s.now["g"] = 1
		go m.Run()
		synctest.Wait()
		require.Equal(t, map[string]float64{"g": 1}, s.keptGauges(), "gauges are set at once")
		m.Add("c", 1)
		m.Add("c", 2)
		m.Observe("d", 5)
		m.Observe("d", 6)
		s.change(func() { s.now["g"] = 2 })
		time.Sleep(time.Second - 1)
		synctest.Wait()
		require.Empty(t, s.keptCounters())
		require.Equal(t, map[string]float64{"g": 1}, s.keptGauges())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, map[string]float64{"c": 3}, s.keptCounters())
		require.Equal(t, map[string][]float64{"d": {5, 6}}, s.keptObserved())
		require.Equal(t, map[string]float64{"g": 2}, s.keptGauges())

		m.Add("c", 4)
		s.change(func() { s.now["g"] = 3 })
		m.Close(t.Context())
		require.Equal(t, map[string]float64{"c": 7}, s.keptCounters(), "a last time")
		require.Equal(t, map[string]float64{"g": 3}, s.keptGauges())
	})
}

func TestManyObservationsAreDeliveredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := newMeter()
		go m.Run()
		synctest.Wait()
		for range 4095 {
			m.Observe("d", 1)
		}
		synctest.Wait()
		require.Empty(t, s.keptObserved())
		m.Observe("d", 1)
		synctest.Wait()
		require.Len(t, s.keptObserved()["d"], 4096)
		m.Close(t.Context())
	})
}

func TestObservationsBeyondTheBoundAreCounted(t *testing.T) {
	m, s := newMeter()
	for range 8192 + 3 {
		m.Observe("d", 1)
	}
	m.Deliver()
	require.Len(t, s.keptObserved()["d"], 8192)
	require.Equal(t, map[string]float64{"dropped": 3}, s.keptCounters())
}

func TestPanicOfMetricsLosesOneValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := newMeter()
		s.change(func() { s.before = func() { panic("x") } })
		for range 3 {
			m.Observe("d", 1)
		}
		m.Deliver()
		require.Equal(t, []string{"d x 0"}, s.panicked, "the rate is bounded")
		s.change(func() { s.before = nil })
		m.Observe("d", 2)
		m.Deliver()
		require.Equal(t, map[string][]float64{"d": {2}}, s.keptObserved())
		require.Equal(t, map[string]float64{"dropped": 3}, s.keptCounters())
	})
}

func TestMeterSurvivesTheEndOfItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := newMeter()
		go m.Run()
		synctest.Wait()
		s.change(func() { s.before = runtime.Goexit })
		m.Add("c", 1)
		time.Sleep(time.Second)
		synctest.Wait()
		s.change(func() { s.before = nil })
		m.Add("c", 2)
		time.Sleep(time.Second)
		m.Close(t.Context())
		require.Equal(t, map[string]float64{"c": 2, "dropped": 1}, s.keptCounters())
	})
}

func TestMetricsThatEndEachGoroutineDoNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := newMeter()
		calls := 0
		s.change(func() {
			s.now["g"] = 1
			s.before = func() {
				s.change(func() { calls++ })
				runtime.Goexit()
			}
		})
		go m.Run()
		time.Sleep(10*time.Second + time.Millisecond)
		m.Close(t.Context())
		synctest.Wait()
		// At first, and every second a counter of the values dropped and perhaps the gauge; two more at the end.
		require.LessOrEqual(t, calls, 1+2*10+2)
	})
}

func TestCloseDoesNotWaitForBlockedMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := newMeter()
		go m.Run()
		synctest.Wait()
		gate := make(chan struct{})
		s.change(func() { s.before = func() { <-gate } })
		m.Add("c", 1)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		m.Add("c", 1) // does not block
		m.Close(ctx)
		require.Equal(t, time.Minute, time.Since(begin))
		close(gate)
		synctest.Wait()
		require.Equal(t, map[string]float64{"c": 2}, s.keptCounters())
	})
}

func TestNilMeterDoesNothing(t *testing.T) {
	var m *usercode.Meter[string]
	m.Add("c", 1)
	m.Observe("d", 1)
	m.Close(t.Context())
}
