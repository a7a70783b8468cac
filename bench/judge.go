// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/coterie-kv/coterie/bench/harness"
)

// A judge makes a verdict of the quantity that it looks at. The ratio is above 1 if coterie is ahead.
type judge struct {
	suffix   string // added to the name of the row, after a colon; empty for the main quantity
	quantity quantity
	// bound is the value with which that of coterie is compared. It is 0 for a comparison with the other contender.
	bound float64
	goal  float64 // for the ratio
}

// A quantity is a number of a sample.
type quantity struct {
	name     string
	of       func(harness.Sample) float64
	less     bool // whether less is better
	duration bool // whether it is a duration, in nanoseconds
}

// The quantities of samples.
var (
	throughput = quantity{name: "operations a second", of: func(s harness.Sample) float64 { return s.Throughput }}
	cpu        = quantity{
		name: "CPU time an operation", of: func(s harness.Sample) float64 { return perOp(s, float64(s.Server.CPU)) },
		less: true, duration: true,
	}
	allocs = quantity{
		name: "allocations an operation", of: func(s harness.Sample) float64 { return perOp(s, float64(s.Server.Allocs)) },
		less: true,
	}
	mean    = quantity{name: "mean latency", of: func(s harness.Sample) float64 { return float64(s.Latency.Mean) }, less: true, duration: true}
	p50     = quantity{name: "p50", of: func(s harness.Sample) float64 { return float64(s.Latency.P50) }, less: true, duration: true}
	p99     = quantity{name: "p99", of: func(s harness.Sample) float64 { return float64(s.Latency.P99) }, less: true, duration: true}
	p999    = quantity{name: "p99.9", of: func(s harness.Sample) float64 { return float64(s.Latency.P999) }, less: true, duration: true}
	longest = quantity{name: "longest", of: func(s harness.Sample) float64 { return float64(s.Latency.Max) }, less: true, duration: true}
)

// figure is the quantity with a name of Sample.Figures. Less is better, except for ratios.
func figure(name string) quantity {
	return quantity{
		name: name, of: func(s harness.Sample) float64 { return s.Figures[name] },
		less: name != harness.FigureRatio && name != harness.FigureCPU,
	}
}

// called returns the quantity with another name.
func (q quantity) called(name string) quantity {
	q.name = name
	return q
}

func perOp(s harness.Sample, v float64) float64 { return v / float64(max(s.Ops, 1)) }

// text formats a value of the quantity.
func (q quantity) text(v float64) string {
	if q.duration {
		return durationText(v)
	}
	return fmt.Sprintf("%.4g", v)
}

func durationText(v float64) string {
	d := time.Duration(v)
	switch {
	case d < 100*time.Microsecond:
		return d.Round(time.Nanosecond).String()
	case d < 100*time.Millisecond:
		return d.Round(time.Microsecond).String()
	default:
		return d.Round(time.Millisecond).String()
	}
}

// ahead returns the judge of a quantity that compares coterie with the other contender.
func ahead(q quantity, goal float64) []judge { return []judge{{quantity: q, goal: goal}} }

// within returns the judge of a quantity that compares coterie with a bound.
func within(q quantity, bound float64) []judge { return []judge{{quantity: q, bound: bound, goal: 1}} }

// and returns the judges with another one. Its verdict has a name of its own.
func and(judges []judge, suffix string, more []judge) []judge {
	m := more[0]
	m.suffix = suffix
	return append(slices.Clip(judges), m)
}

// value returns the median of the quantity.
func (q quantity) value(rounds []harness.Sample) float64 { return median(rounds, q.of) }

// maxRatio stands for all ratios that are larger.
const maxRatio = 1e6

// ratio returns how far a value is ahead of another one.
func (q quantity) ratio(value, other float64) float64 {
	if q.less {
		value, other = other, value
	}
	if value == other {
		return 1 // even if both are zero
	}
	return min(value/other, maxRatio) // JSON has no infinity
}

// ratio returns the ratio of a result.
func (j judge) ratio(r result) float64 {
	last := r.last()
	if j.bound > 0 {
		return j.quantity.ratio(j.quantity.value(last.Rounds), j.bound)
	}
	return j.quantity.ratio(j.quantity.value(last.Rounds), j.quantity.value(r.Systems[0].Rounds))
}

// spread returns the least and the largest ratio of two rounds that followed each other.
func (j judge) spread(r result) (least, largest float64) {
	for i, s := range r.last().Rounds {
		other := j.bound
		if other == 0 {
			other = j.quantity.of(r.Systems[0].Rounds[i])
		}
		ratio := j.quantity.ratio(j.quantity.of(s), other)
		if i == 0 {
			least, largest = ratio, ratio
		}
		least, largest = min(least, ratio), max(largest, ratio)
	}
	return least, largest
}

// median returns the median of a quantity of samples.
func median[T cmp.Ordered](samples []harness.Sample, of func(harness.Sample) T) T {
	values := make([]T, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
