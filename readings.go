// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"encoding/json"
	"sync"
)

// Readings is a Metrics that keeps in memory what it is told, and shows it as JSON. It is an
// expvar.Var, without the side effect that importing package expvar has, which serves /debug/vars:
//
//	var readings coterie.Readings
//	expvar.Publish("coterie", &readings)
//	n, err := coterie.Open(ctx, coterie.Config{Metrics: &readings, …})
//
// The zero value is ready. Its methods may be called concurrently. Of distributions it keeps the number
// of values, their sum and the largest: under the name with _count, _sum and _max.
type Readings struct {
	mu     sync.Mutex
	values map[Metric]float64
}

// change runs fn with the values, which exist then.
func (r *Readings) change(fn func(values map[Metric]float64)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.values == nil {
		r.values = map[Metric]float64{}
	}
	fn(r.values)
}

// Add is Metrics.
func (r *Readings) Add(m Metric, delta float64) {
	r.change(func(values map[Metric]float64) { values[m] += delta })
}

// Set is Metrics.
func (r *Readings) Set(m Metric, value float64) {
	r.change(func(values map[Metric]float64) { values[m] = value })
}

// Observe is Metrics.
func (r *Readings) Observe(m Metric, value float64) {
	r.change(func(values map[Metric]float64) {
		values[m+"_count"]++
		values[m+"_sum"] += value
		values[m+"_max"] = max(values[m+"_max"], value)
	})
}

// Value returns what a metric is now; 0 if it was never told of.
func (r *Readings) Value(m Metric) (value float64) {
	r.change(func(values map[Metric]float64) { value = values[m] })
	return value
}

// String returns all values as a JSON object, in the order of their names: it is expvar.Var.
func (r *Readings) String() string {
	var text []byte
	r.change(func(values map[Metric]float64) {
		text, _ = json.Marshal(values) // of finite numbers: it cannot fail
	})
	return string(text)
}
