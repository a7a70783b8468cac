// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/coterie-kv/coterie/bench/harness"
	"github.com/coterie-kv/coterie/bench/recording"
)

// A result is the outcome of a row.
type result struct {
	Name    string         `json:"name"`
	About   string         `json:"about"`
	Unit    string         `json:"unit"`
	Systems []systemResult `json:"systems"` // coterie last
	judges  []judge
}

// A systemResult is the outcome of a row on one system.
type systemResult struct {
	Name       string           `json:"name"`
	Durability string           `json:"durability"`
	Rounds     []harness.Sample `json:"rounds"`
}

// A verdict compares a result with a goal.
type verdict struct {
	Name  string  `json:"name"`
	Ratio float64 `json:"ratio"`
	Goal  float64 `json:"goal"`
	Pass  bool    `json:"pass"`
}

func (r result) last() systemResult { return r.Systems[len(r.Systems)-1] }

func (r result) verdicts() (all []verdict) {
	for _, j := range r.judges {
		name := r.Name
		if j.suffix != "" {
			name += ":" + j.suffix
		}
		ratio := j.ratio(r)
		all = append(all, verdict{name, ratio, j.goal, ratio >= j.goal})
	}
	return all
}

func (v verdict) String() string {
	outcome := "short"
	if v.Pass {
		outcome = "pass"
	}
	return fmt.Sprintf("%s %.2f %.2f %s", v.Name, v.Ratio, v.Goal, outcome)
}

// print prints a result. The last lines are the verdicts.
func (r result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n", r.Name, r.About)
	for _, s := range r.Systems {
		s.print(w, r.Unit)
	}
	for _, j := range r.judges {
		least, largest := j.spread(r)
		fmt.Fprintf(w, "  %s: %s", j.quantity.name, j.quantity.text(j.quantity.value(r.last().Rounds)))
		if j.bound > 0 {
			fmt.Fprintf(w, ", bound %s", j.quantity.text(j.bound))
		} else {
			fmt.Fprintf(w, " beside %s", j.quantity.text(j.quantity.value(r.Systems[0].Rounds)))
		}
		fmt.Fprintf(w, "; spread of the ratio: %.2f to %.2f\n", least, largest)
	}
	for _, v := range r.verdicts() {
		fmt.Fprintln(w, v)
	}
}

func (s systemResult) print(w io.Writer, unit string) {
	late := func(of func(harness.Latency) time.Duration) string {
		return durationText(float64(median(s.Rounds, func(r harness.Sample) time.Duration { return of(r.Latency) })))
	}
	each := func(of func(harness.Sample) float64) float64 {
		return median(s.Rounds, func(r harness.Sample) float64 { return perOp(r, of(r)) })
	}
	fmt.Fprintf(w, "  %s: %s\n", s.Name, s.Durability)
	fmt.Fprintf(w, "    %.0f %s/s  mean %s p50 %s p99 %s p99.9 %s longest %s\n", throughput.value(s.Rounds), unit,
		late(func(l harness.Latency) time.Duration { return l.Mean }), late(func(l harness.Latency) time.Duration { return l.P50 }),
		late(func(l harness.Latency) time.Duration { return l.P99 }), late(func(l harness.Latency) time.Duration { return l.P999 }),
		late(func(l harness.Latency) time.Duration { return l.Max }))
	fmt.Fprintf(w, "    %.2f µs CPU (%.2f in the system), %.1f allocations, %.0f bytes an operation; at most %.0f MB resident",
		cpu.value(s.Rounds)/1e3,
		each(func(r harness.Sample) float64 { return float64(r.Server.SysCPU) / 1e3 }),
		allocs.value(s.Rounds),
		each(func(r harness.Sample) float64 { return float64(r.Server.Bytes) }),
		median(s.Rounds, func(r harness.Sample) float64 { return float64(r.Server.MaxRSS) / 1e6 }))
	if clients := each(func(r harness.Sample) float64 { return float64(r.ClientCPU) / 1e3 }); clients > 0 {
		fmt.Fprintf(w, "; clients: %.2f µs CPU", clients)
	}
	fmt.Fprintln(w)
	var figures []string
	for _, name := range slices.Sorted(maps.Keys(s.Rounds[0].Figures)) {
		figures = append(figures, fmt.Sprintf("%s %.5g", name, figure(name).value(s.Rounds)))
	}
	if len(figures) > 0 {
		fmt.Fprintf(w, "    %s\n", strings.Join(figures, ", "))
	}
}

// writeResults writes results to a file, with the machine on which they were measured.
func writeResults(file string, on recording.Machine, results []result) error {
	var verdicts []verdict
	for _, r := range results {
		verdicts = append(verdicts, r.verdicts()...)
	}
	return recording.Write(file, struct {
		recording.Machine
		Verdicts []verdict `json:"verdicts"`
		Results  []result  `json:"results"`
	}{on, verdicts, results})
}
