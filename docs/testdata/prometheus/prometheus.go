// SPDX-License-Identifier: Apache-2.0

// Package prometheus declares what the sample of docs/metrics.md uses of
// github.com/prometheus/client_golang/prometheus, so that the sample is compiled without that module.
package prometheus

// The types and functions have the names and signatures of the module's.
type (
	Collector  interface{}
	Registerer interface{ MustRegister(...Collector) }
	Counter    interface{ Add(float64) }
	Gauge      interface{ Set(float64) }
	Histogram  interface{ Observe(float64) }

	CounterOpts   struct{ Name string }
	GaugeOpts     struct{ Name string }
	HistogramOpts struct {
		Name    string
		Buckets []float64
	}
)

func NewCounter(CounterOpts) Counter                                { return nil }
func NewGauge(GaugeOpts) Gauge                                      { return nil }
func NewHistogram(HistogramOpts) Histogram                          { return nil }
func ExponentialBuckets(start, factor float64, count int) []float64 { return nil }
