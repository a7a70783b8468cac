// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/internal/usercode"
)

// Metrics receives the measurements of a node: see [Config.Metrics]. A goroutine of the node calls its
// methods, one at a time, every second and a last time when the node has stopped. They may block or panic:
// the node does not wait for them. Meanwhile the node adds counters up and keeps up to 8192 values of
// distributions; MetricMetricsDropped counts the values that are lost. Nodes that share a Metrics call it
// concurrently.
//
// Every name is a constant of this package and always comes to the same method. There are no labels: to tell
// nodes apart, give each node its own Metrics. See docs/metrics.md for the meaning of each metric, and
// [ExpvarMetrics] for an implementation for package expvar.
type Metrics interface {
	// Add adds to a counter. Its name ends in _total.
	Add(m Metric, delta float64)
	// Set sets the current value of a gauge.
	Set(m Metric, value float64)
	// Observe adds a value to a distribution of seconds, bytes or numbers, as its name says.
	Observe(m Metric, value float64)
}

// ExpvarMetrics is a [Metrics] that keeps the measurements in memory and returns them as JSON. It is an
// expvar.Var. Package coterie does not import package expvar, because that import serves /debug/vars:
//
//	var metrics coterie.ExpvarMetrics
//	expvar.Publish("coterie", &metrics)
//	n, err := coterie.Open(ctx, coterie.Config{Metrics: &metrics, …})
//
// The zero value is ready to use, and its methods may be called concurrently. For a distribution it keeps the
// number of values, their sum and the largest one, under the metric's name with _count, _sum and _max.
type ExpvarMetrics struct {
	mu     sync.Mutex
	values map[Metric]float64
}

// change calls fn with the values, under the lock.
func (e *ExpvarMetrics) change(fn func(values map[Metric]float64)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.values == nil {
		e.values = map[Metric]float64{}
	}
	fn(e.values)
}

// Add implements Metrics.
func (e *ExpvarMetrics) Add(m Metric, delta float64) {
	e.change(func(values map[Metric]float64) { values[m] += delta })
}

// Set implements Metrics.
func (e *ExpvarMetrics) Set(m Metric, value float64) {
	e.change(func(values map[Metric]float64) { values[m] = value })
}

// Observe implements Metrics.
func (e *ExpvarMetrics) Observe(m Metric, value float64) {
	e.change(func(values map[Metric]float64) {
		values[m+"_count"]++
		values[m+"_sum"] += value
		values[m+"_max"] = max(values[m+"_max"], value)
	})
}

// Value returns the current value of a metric, or 0 if the node has not reported it.
func (e *ExpvarMetrics) Value(m Metric) (value float64) {
	e.change(func(values map[Metric]float64) { value = values[m] })
	return value
}

// String returns all values as a JSON object, sorted by name. It implements expvar.Var.
func (e *ExpvarMetrics) String() string {
	var text []byte
	e.change(func(values map[Metric]float64) {
		text, _ = json.Marshal(values) // cannot fail: the numbers are finite
	})
	return string(text)
}

// newMeter returns the meter of a node with Config.Metrics.
func newMeter(n *Node) *usercode.Meter[Metric] {
	return usercode.NewMeter(usercode.MeterConfig[Metric]{
		To: n.cfg.Metrics, Dropped: MetricMetricsDropped, Gauges: n.gauges,
		Panicked: func(of Metric, cause any, omitted int) {
			n.cfg.Logger.Error("Config.Metrics has panicked", "metric", of, "panic", cause, "omitted", omitted)
		},
	})
}

// closeMeter waits for a moment until Config.Metrics has taken the last values.
func closeMeter(ctx context.Context, m *usercode.Meter[Metric]) {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	m.Close(ctx)
}

// measureProposal measures a proposal that began at a time and ended with err, or with its result if err is nil.
func measureProposal(m *usercode.Meter[Metric], begin time.Time, err error) {
	switch {
	case err == nil:
		m.Add(MetricProposalsApplied, 1)
		m.Observe(MetricProposalSeconds, time.Since(begin).Seconds())
	case errors.Is(err, ErrMaybeApplied):
		m.Add(MetricProposalsUncertain, 1)
	case errors.Is(err, ErrNoSpace), errors.Is(err, ErrOverloaded):
		m.Add(MetricProposalsRefused, 1)
	default:
		m.Add(MetricProposalsGivenUp, 1)
	}
}

// measureLogWrite measures one write of the log with its sync.
func measureLogWrite(m *usercode.Meter[Metric], bytes int, took time.Duration) {
	m.Observe(MetricLogWriteSeconds, took.Seconds())
	m.Observe(MetricLogWriteBytes, float64(bytes))
}

// measureHeartbeat measures a heartbeat that this node has sent.
func measureHeartbeat(m *usercode.Meter[Metric], took time.Duration, err error) {
	if err == nil {
		m.Observe(MetricHeartbeatSeconds, took.Seconds())
	} else {
		m.Add(MetricHeartbeatsFailed, 1)
	}
}

// gauges returns the gauges of a node that have a value.
func (n *Node) gauges() map[Metric]float64 {
	s := n.Status()
	calls, bytes := n.proposer.Pending()
	values := map[Metric]float64{
		MetricLeading:    0,
		MetricTerm:       float64(s.Term),
		MetricRevision:   float64(s.Revision),
		MetricKeys:       float64(s.Keys),
		MetricLeases:     float64(s.Leases),
		MetricWatchers:   float64(s.Watchers),
		MetricStoreBytes: float64(s.Bytes),

		MetricPendingCalls: float64(calls),
		MetricPendingBytes: float64(bytes),

		MetricApplyLagEntries:    float64(s.lag()),
		MetricDiskRefusedSeconds: s.DiskRefused.Seconds(),
		MetricDiskStalledSeconds: s.DiskStalled.Seconds(),
	}
	if s.Role == RoleLeader {
		values[MetricLeading] = 1
	}
	if s.QuotaBytes > 0 {
		values[MetricQuotaRatio] = float64(s.Bytes) / float64(s.QuotaBytes)
	}
	if s.LastContact >= 0 {
		values[MetricLastContactSeconds] = s.LastContact.Seconds()
	}
	return values
}

// lag returns the number of entries that are known to be committed and not applied yet.
func (s *Status) lag() uint64 { return max(s.Committed, s.Applied) - s.Applied }
