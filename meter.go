// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/internal/signal"
	"github.com/coterie-kv/coterie/internal/throttle"
)

// A meter gathers what a node measures and gives it to Config.Metrics on a goroutine of its own, so that
// nothing of the node waits for that, or fails with it. nil measures nothing.
type meter struct {
	n    *Node
	to   Metrics
	wake chan struct{} // has a value when many values wait
	stop chan struct{} // closed when the node has stopped
	done chan struct{} // closed when the last values were delivered

	panics throttle.Throttle

	mu       sync.Mutex
	counts   map[Metric]int // since they were delivered
	observed []reading
}

// A reading is a value of a distribution.
type reading struct {
	of    Metric
	value float64
}

const (
	// meterInterval is how often values are delivered and gauges are set.
	meterInterval = time.Second
	// maxReadings bounds the values of distributions that wait; counters do not grow. Half of it is
	// delivered at once.
	maxReadings = 8192
)

func newMeter(n *Node) *meter {
	return &meter{
		n: n, to: n.cfg.Metrics, counts: map[Metric]int{},
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
}

func (m *meter) add(of Metric, delta int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[of] += delta
}

func (m *meter) observe(of Metric, value float64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.observed) == maxReadings {
		m.counts[MetricMetricsDropped]++
		return
	}
	m.observed = append(m.observed, reading{of, value})
	if len(m.observed) == maxReadings/2 {
		signal.Poke(m.wake)
	}
}

// run delivers until the node has stopped, and a last time then: where the process goes on gauges stay
// as they are, and a node that has stopped does not lead. Metrics that end the goroutine get another.
func (m *meter) run() {
	ended := false
	defer func() {
		if !ended {
			go m.run()
		}
	}()
	tick := time.NewTicker(meterInterval)
	defer tick.Stop()
	m.gauge()
	for {
		select {
		case <-tick.C:
			m.deliver()
			m.gauge()
		case <-m.wake:
			m.deliver()
		case <-m.stop:
			m.deliver()
			m.gauge()
			ended = true
			close(m.done)
			return
		}
	}
}

func (m *meter) deliver() {
	m.mu.Lock()
	counts, observed := m.counts, m.observed
	m.counts, m.observed = make(map[Metric]int, len(counts)), make([]reading, 0, len(observed))
	m.mu.Unlock()
	for of, delta := range counts {
		m.call(of, func() { m.to.Add(of, float64(delta)) })
	}
	for _, r := range observed {
		m.call(r.of, func() { m.to.Observe(r.of, r.value) })
	}
}

func (m *meter) gauge() {
	s := m.n.Status()
	values := gauges(&s)
	calls, bytes := m.n.proposer.Pending()
	values[MetricPendingCalls], values[MetricPendingBytes] = float64(calls), float64(bytes)
	for of, value := range values {
		m.call(of, func() { m.to.Set(of, value) })
	}
}

// call runs fn, which calls Metrics. What that does not take is lost.
func (m *meter) call(of Metric, fn func()) {
	taken := false
	defer func() {
		cause := recover()
		if taken {
			return
		}
		m.add(MetricMetricsDropped, 1)
		if unsaid, ok := m.panics.Allow(""); ok {
			m.n.cfg.Logger.Error("Config.Metrics has panicked", "metric", of, "panic", cause, "unsaid", unsaid)
		}
	}()
	fn()
	taken = true
}

// close gives Metrics a moment for the last values. A Metrics that blocks gets them later.
func (m *meter) close(ctx context.Context) {
	if m == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	close(m.stop)
	select {
	case <-m.done:
	case <-ctx.Done():
	}
}
