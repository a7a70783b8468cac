// SPDX-License-Identifier: Apache-2.0

package harness

import "time"

// A Sample is the outcome of a run.
type Sample struct {
	Ops        int64         `json:"ops"`
	Elapsed    time.Duration `json:"elapsedNanos"`
	Latency    Latency       `json:"latency"`
	Server     Usage         `json:"server"`                   // of the process of the system
	ClientCPU  time.Duration `json:"clientCPUNanos,omitempty"` // of the process of the callers, if it is another one
	Throughput float64       `json:"opsPerSecond"`
	// Figures are the results of a workload that have another unit, by their names.
	Figures map[string]float64 `json:"figures,omitempty"`
}

// A Latency summarizes the durations of operations.
type Latency struct {
	Mean time.Duration `json:"meanNanos"`
	P50  time.Duration `json:"p50Nanos"`
	P99  time.Duration `json:"p99Nanos"`
	P999 time.Duration `json:"p999Nanos"`
	Max  time.Duration `json:"maxNanos"`
}

// A Meter measures the process of a system while callers use it.
type Meter struct {
	// Usage returns the usage of the process.
	Usage func() (Usage, error)
	// Apart is whether that process is another one. Then the CPU time of this process is that of the clients.
	Apart bool
}

// OwnUsage is the Meter of a system in this process.
var OwnUsage = Meter{Usage: func() (Usage, error) { return Used(), nil }}

// measure measures f, which adds the durations of its operations to h.
func (m Meter) measure(h *histogram, f func() error) (s Sample, err error) {
	before, err := m.Usage()
	if err != nil {
		return s, err
	}
	cpu, start := cpuTime(), time.Now()
	err = f()
	s.Elapsed = time.Since(start)
	if m.Apart {
		s.ClientCPU = cpuTime() - cpu
	}
	if err != nil {
		return s, err
	}
	after, err := m.Usage()
	if err != nil {
		return s, err
	}
	s.Server = after.since(before)
	s.Ops, s.Latency = h.summary()
	s.Throughput = float64(s.Ops) / s.Elapsed.Seconds()
	return s, nil
}
