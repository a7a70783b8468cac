// SPDX-License-Identifier: Apache-2.0

package usercode

import (
	"context"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/throttle"
)

// Metrics is coterie.Metrics, for metrics with names of type M.
type Metrics[M ~string] interface {
	Add(m M, delta float64)
	Set(m M, value float64)
	Observe(m M, value float64)
}

// A MeterConfig is what a Meter needs.
type MeterConfig[M ~string] struct {
	To      Metrics[M]
	Dropped M                    // the counter of values that were lost
	Gauges  func() map[M]float64 // the gauges that have a value now
	// Panicked is called when To has panicked, at a bounded rate, with the number of panics that were left out
	// since the last call.
	Panicked func(of M, cause any, leftOut int)
}

// A Meter collects the measurements of a node and passes them to a Metrics on a goroutine of its own, so that
// the node neither waits for that nor fails with it. The methods of a nil Meter do nothing.
//
// mu guards counts and observed. Everything else is set by NewMeter; only Run's goroutine calls cfg.To.
type Meter[M ~string] struct {
	cfg  MeterConfig[M]
	wake chan struct{} // has a value when many values wait
	stop chan struct{} // closed by Close
	done chan struct{} // closed when the last values were delivered

	panics throttle.Throttle

	mu       sync.Mutex
	counts   map[M]int // since the last delivery
	observed []observation[M]
}

// An observation is a value of a distribution.
type observation[M ~string] struct {
	of    M
	value float64
}

const (
	// meterInterval is the time between deliveries, at each of which gauges are set as well.
	meterInterval = time.Second
	// maxObserved bounds the values of distributions that wait; counters do not grow. Half of it is delivered
	// at once.
	maxObserved = 8192
)

// NewMeter returns a Meter. Call Run on a goroutine of its own.
func NewMeter[M ~string](cfg MeterConfig[M]) *Meter[M] {
	return &Meter[M]{
		cfg: cfg, counts: map[M]int{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// Add adds to a counter.
func (m *Meter[M]) Add(of M, delta int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[of] += delta
}

// Observe adds a value to a distribution.
func (m *Meter[M]) Observe(of M, value float64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.observed) == maxObserved {
		m.counts[m.cfg.Dropped]++
		return
	}
	m.observed = append(m.observed, observation[M]{of, value})
	if len(m.observed) == maxObserved/2 {
		signal.Poke(m.wake)
	}
}

// Run delivers until Close is called, and then a last time: a process may outlive its node and keep the last
// value of each gauge, and a node that has stopped does not lead. If the Metrics ends the goroutine, another
// one takes over.
func (m *Meter[M]) Run() { m.run(true) }

// run sets the gauges at once only if it is the first: the Metrics may end each goroutine that sets one.
func (m *Meter[M]) run(first bool) {
	ended := false
	defer func() {
		if !ended {
			go m.run(false)
		}
	}()
	tick := time.NewTicker(meterInterval)
	defer tick.Stop()
	if first {
		m.setGauges()
	}
	for {
		select {
		case <-tick.C:
			m.Deliver()
			m.setGauges()
		case <-m.wake:
			m.Deliver()
		case <-m.stop:
			ended = true
			defer close(m.done) // deferred, as the Metrics may end this goroutine, too
			defer m.setGauges()
			m.Deliver()
			return
		}
	}
}

// Deliver passes on the counters and distributions that were collected since the last call.
func (m *Meter[M]) Deliver() {
	m.mu.Lock()
	counts, observed := m.counts, m.observed
	m.counts, m.observed = make(map[M]int, len(counts)), make([]observation[M], 0, len(observed))
	m.mu.Unlock()
	for of, delta := range counts {
		m.call(of, func() { m.cfg.To.Add(of, float64(delta)) })
	}
	for _, o := range observed {
		m.call(o.of, func() { m.cfg.To.Observe(o.of, o.value) })
	}
}

func (m *Meter[M]) setGauges() {
	for of, value := range m.cfg.Gauges() {
		m.call(of, func() { m.cfg.To.Set(of, value) })
	}
}

// call runs fn, which calls the Metrics. If fn panics, its value is lost and counted.
func (m *Meter[M]) call(of M, fn func()) {
	taken := false
	defer func() {
		cause := recover()
		if taken {
			return
		}
		m.Add(m.cfg.Dropped, 1)
		if leftOut, ok := m.panics.Allow(""); ok {
			m.cfg.Panicked(of, cause, leftOut)
		}
	}()
	fn()
	taken = true
}

// Close ends Run, and waits for the last delivery until ctx ends. If the Metrics blocks, Run ends after that.
func (m *Meter[M]) Close(ctx context.Context) {
	if m == nil {
		return
	}
	close(m.stop)
	select {
	case <-m.done:
	case <-ctx.Done():
	}
}
