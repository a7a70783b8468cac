// SPDX-License-Identifier: Apache-2.0

package harness

// The figures of workloads that compare two samples of one system: with and without something, or late and early.
const (
	FigureRatio   = "ratio"            // throughput of the second sample, divided by that of the first one
	FigureCPU     = "cpuRatio"         // CPU time of an operation in the first sample, divided by that in the second one
	FigureWithout = "withoutPerSecond" // throughput of the first sample
)

// compared returns the figures of two samples.
func compared(without, with Sample) map[string]float64 {
	cpu := func(s Sample) float64 { return float64(s.Server.CPU) / float64(max(s.Ops, 1)) }
	return map[string]float64{
		FigureRatio: with.Throughput / without.Throughput, FigureCPU: cpu(without) / cpu(with), FigureWithout: without.Throughput,
	}
}

// sum returns the throughput and the CPU time of two samples together.
func sum(a, b Sample) (s Sample) {
	s.Ops, s.Elapsed, s.Server.CPU = a.Ops+b.Ops, a.Elapsed+b.Elapsed, a.Server.CPU+b.Server.CPU
	s.Throughput = float64(s.Ops) / s.Elapsed.Seconds()
	return s
}
