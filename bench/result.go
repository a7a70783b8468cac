// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
)

// A result is the outcome of a row.
type result struct {
	Name    string          `json:"name"`
	About   string          `json:"about"`
	Unit    string          `json:"unit"`
	Goal    float64         `json:"goal"`
	Systems [2]systemResult `json:"systems"`
}

// A systemResult is the outcome of a row on one system.
type systemResult struct {
	Name   string   `json:"name"`
	Rounds []sample `json:"rounds"`
}

func (s systemResult) throughput() float64 {
	return median(s.Rounds, func(r sample) float64 { return r.Throughput })
}

// serverCPU returns the CPU time of the server for an operation.
func (s systemResult) serverCPU() float64 {
	return median(s.Rounds, func(r sample) float64 { return micros(r.Server.CPU) / float64(r.Ops) })
}

// ratio returns the ratio of the medians of the throughput.
func (r result) ratio() float64 { return r.Systems[1].throughput() / r.Systems[0].throughput() }

// spread returns the least and the largest ratio of the throughput of two rounds that followed each other.
func (r result) spread() (least, largest float64) {
	for i, s := range r.Systems[0].Rounds {
		ratio := r.Systems[1].Rounds[i].Throughput / s.Throughput
		if i == 0 {
			least, largest = ratio, ratio
		}
		least, largest = min(least, ratio), max(largest, ratio)
	}
	return least, largest
}

// print prints a result. The last line is the verdict.
func (r result) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n", r.Name, r.About)
	for _, s := range r.Systems {
		perOp := func(of func(sample) float64) float64 {
			return median(s.Rounds, func(r sample) float64 { return of(r) / float64(r.Ops) })
		}
		late := func(of func(latency) time.Duration) time.Duration {
			return median(s.Rounds, func(r sample) time.Duration { return of(r.Latency) }).Round(time.Microsecond)
		}
		fmt.Fprintf(w, "  %-8s %9.0f %s/s  mean %v p50 %v p99 %v p99.9 %v\n", s.Name, s.throughput(), r.Unit,
			late(func(l latency) time.Duration { return l.Mean }), late(func(l latency) time.Duration { return l.P50 }),
			late(func(l latency) time.Duration { return l.P99 }), late(func(l latency) time.Duration { return l.P999 }))
		fmt.Fprintf(w, "  %-8s server: %.2f µs CPU (%.2f in the system), %.1f allocations, %.0f bytes; clients: %.2f µs CPU\n", "",
			s.serverCPU(),
			perOp(func(r sample) float64 { return micros(r.Server.SysCPU) }),
			perOp(func(r sample) float64 { return float64(r.Server.Allocs) }),
			perOp(func(r sample) float64 { return float64(r.Server.Bytes) }),
			perOp(func(r sample) float64 { return micros(r.ClientCPU) }))
	}
	least, largest := r.spread()
	fmt.Fprintf(w, "  spread of the ratio: %.2f to %.2f; CPU of the servers for an operation: %.2f of %s's\n", least, largest,
		r.Systems[1].serverCPU()/r.Systems[0].serverCPU(), r.Systems[0].Name)
	verdict := "pass"
	if r.ratio() < r.Goal {
		verdict = "short"
	}
	fmt.Fprintf(w, "%s %.2f %.2f %s\n", r.Name, r.ratio(), r.Goal, verdict)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// writeJSON writes results to a file, with the machine on which they were measured.
func writeJSON(file string, results []result) error {
	text, err := json.MarshalIndent(struct {
		Measured time.Time `json:"measured"`
		Go       string    `json:"go"`
		System   string    `json:"system"`
		CPUs     int       `json:"cpus"`
		Results  []result  `json:"results"`
	}{time.Now().UTC(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH, runtime.NumCPU(), results}, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
