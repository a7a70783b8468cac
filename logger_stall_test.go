// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A stalled is a slog.Handler and a Metrics that blocks in every method while its gate is closed.
type stalled struct {
	coterie.ExpvarMetrics
	gate  atomic.Pointer[chan struct{}]
	calls atomic.Int64 // that have begun
}

func (s *stalled) shut() {
	gate := make(chan struct{})
	s.gate.Store(&gate)
}

// open lets all calls through, including those that wait.
func (s *stalled) open() {
	if gate := s.gate.Swap(nil); gate != nil {
		close(*gate)
	}
}

func (s *stalled) wait() {
	s.calls.Add(1)
	if gate := s.gate.Load(); gate != nil {
		<-*gate
	}
}

func (s *stalled) Enabled(context.Context, slog.Level) bool  { s.wait(); return true }
func (s *stalled) Handle(context.Context, slog.Record) error { s.wait(); return nil }
func (s *stalled) WithAttrs([]slog.Attr) slog.Handler        { s.wait(); return s }
func (s *stalled) WithGroup(string) slog.Handler             { s.wait(); return s }

func (s *stalled) Add(m coterie.Metric, v float64)     { s.wait(); s.ExpvarMetrics.Add(m, v) }
func (s *stalled) Set(m coterie.Metric, v float64)     { s.wait(); s.ExpvarMetrics.Set(m, v) }
func (s *stalled) Observe(m coterie.Metric, v float64) { s.wait(); s.ExpvarMetrics.Observe(m, v) }

// handOver transfers the leadership, and returns when every node knows the new leader.
func handOver(t *testing.T, c *coterietest.Cluster, to *coterie.Node) {
	t.Helper()
	require.NoError(t, c.Leader().TransferLeadership(t.Context(), to.ID()))
	for _, n := range c.Nodes() {
		for n.Status().Leader != to.ID() {
			time.Sleep(time.Millisecond)
		}
	}
}

// The logger and the metrics of every node block, as a pipe without a reader does. The cluster continues without
// delay through hand-overs, a crash and Close.
func TestBlockedLoggerAndMetricsStallNothing(t *testing.T) {
	sinks := []*stalled{{}, {}, {}}
	defer func() {
		for _, s := range sinks {
			s.open()
		}
	}()
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for _, s := range sinks {
			s.shut()
		}
		write := func(n *coterie.Node) {
			begin := time.Now()
			put(t, n, "k", "v")
			get(t, n, "k")
			require.Less(t, time.Since(begin), time.Second)
		}
		for range 3 { // the leadership passes between blocked nodes
			handOver(t, c, c.Follower())
			for _, n := range c.Nodes() {
				for range 5 {
					write(n)
				}
			}
			time.Sleep(3 * time.Second)
		}
		for _, s := range sinks {
			require.Positive(t, s.calls.Load())
		}
		crashed := c.Index(c.Leader())
		c.Crash(crashed)
		write(c.Leader())
		c.Restart(crashed)
		require.NoError(t, c.Node(crashed).Ready(t.Context()))
		write(c.Node(crashed))

		begin := time.Now()
		c.Stop(c.Index(c.Leader()))
		require.Less(t, time.Since(begin), 3*time.Second, "Close hands over, and waits half a second for each sink")
		for _, s := range sinks {
			s.open()
		}
	}, coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		cfg.Logger, cfg.Metrics = slog.New(sinks[i]), sinks[i]
	}))
}

func TestBlockedMetricsGetCountersLater(t *testing.T) {
	s := &stalled{}
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		s.shut()
		time.Sleep(2 * time.Second) // the meter is in a call that blocks
		const writes = 3000
		for range writes {
			put(t, n, "k", "v")
		}
		s.open()
		time.Sleep(2 * time.Second)
		require.EqualValues(t, writes, s.Value(coterie.MetricProposalsApplied), "no counter loses values")
		kept, lost := 0.0, s.Value(coterie.MetricMetricsDropped)
		for _, m := range []coterie.Metric{
			coterie.MetricProposalSeconds, coterie.MetricBatchProposals, coterie.MetricLogWriteSeconds, coterie.MetricLogWriteBytes,
		} {
			kept += s.Value(m + "_count")
		}
		require.Positive(t, lost)
		require.InDelta(t, 4*writes, kept+lost, 1000, "including entries that the node writes by itself")
		require.Positive(t, s.Value(coterie.MetricRevision), "gauges are set again")
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Metrics = s }))
}
