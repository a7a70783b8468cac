// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"slices"
	"syscall"
	"time"
)

// A sample is the outcome of a round on one system.
type sample struct {
	Ops        int           `json:"ops"`
	Elapsed    time.Duration `json:"elapsedNanos"`
	Latency    latency       `json:"latency"`
	Server     usage         `json:"server"`
	ClientCPU  time.Duration `json:"clientCPUNanos"`
	Throughput float64       `json:"opsPerSecond"`
}

// A latency summarizes the durations of operations.
type latency struct {
	Mean time.Duration `json:"meanNanos"`
	P50  time.Duration `json:"p50Nanos"`
	P99  time.Duration `json:"p99Nanos"`
	P999 time.Duration `json:"p999Nanos"`
}

// A usage is what a process has used, since its start or within a round.
type usage struct {
	CPU     time.Duration `json:"cpuNanos"`
	Allocs  uint64        `json:"allocs"`
	Bytes   uint64        `json:"allocatedBytes"`
	MaxRSS  int64         `json:"maxRSSBytes"`
	SysCPU  time.Duration `json:"systemCPUNanos"` // the part of CPU that the system has used for the process
	GCCount uint32        `json:"collections"`
}

// since returns the usage after an earlier one.
func (u usage) since(earlier usage) usage {
	u.CPU -= earlier.CPU
	u.SysCPU -= earlier.SysCPU
	u.Allocs -= earlier.Allocs
	u.Bytes -= earlier.Bytes
	u.GCCount -= earlier.GCCount
	return u
}

// cpuTime returns the CPU time of this process, and the part of it that the system has used.
func cpuTime() (total, system time.Duration) {
	r := rusage()
	system = time.Duration(r.Stime.Nano())
	return time.Duration(r.Utime.Nano()) + system, system
}

func rusage() (r syscall.Rusage) {
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err) // RUSAGE_SELF is always valid
	}
	return r
}

// summarize returns the latency of operations. It sorts their durations.
func summarize(durations []time.Duration) latency {
	if len(durations) == 0 {
		return latency{}
	}
	slices.Sort(durations)
	var sum time.Duration
	for _, d := range durations {
		sum += d
	}
	at := func(share float64) time.Duration { return durations[int(share*float64(len(durations)-1))] }
	return latency{Mean: sum / time.Duration(len(durations)), P50: at(0.5), P99: at(0.99), P999: at(0.999)}
}

// median returns the median of a quantity of samples.
func median[T cmp.Ordered](samples []sample, of func(sample) T) T {
	values := make([]T, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
