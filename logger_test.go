// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// A gated handler waits for its gate, and then records the line.
type gated struct {
	slog.Handler
	gate  chan struct{}
	lines *[]slog.Record
}

func (h gated) Enabled(context.Context, slog.Level) bool { return true }
func (h gated) WithAttrs([]slog.Attr) slog.Handler       { return h }

func (h gated) Handle(_ context.Context, r slog.Record) error {
	<-h.gate
	*h.lines = append(*h.lines, r)
	return nil
}

func TestDroppedLinesAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r ExpvarMetrics
		var lines []slog.Record
		h := gated{gate: make(chan struct{}), lines: &lines}
		n := &Node{cfg: Config{Metrics: &r, Logger: slog.New(h)}}
		n.meter = newMeter(n)
		n.startLogger()
		for range 2000 {
			n.cfg.Logger.Info("line")
		}
		n.meter.Deliver()
		dropped := int64(r.Value(MetricLogDropped))
		require.Positive(t, dropped)
		close(h.gate)
		synctest.Wait()
		last := lines[len(lines)-1]
		require.Equal(t, "lines of the log were dropped", last.Message)
		last.Attrs(func(a slog.Attr) bool {
			require.Equal(t, dropped, a.Value.Int64(), a.Key)
			return true
		})
		require.EqualValues(t, 2000, dropped+int64(len(lines)-1))
		n.stopLogger(t.Context())
	})
}

func TestDiscardingLoggerHasNoQueue(t *testing.T) {
	n := &Node{cfg: Config{Logger: slog.New(slog.DiscardHandler)}}
	n.startLogger()
	require.Nil(t, n.lines)
	n.stopLogger(t.Context())

	cfg, err := Config{InMemory: true}.withDefaults()
	require.NoError(t, err)
	require.Same(t, slog.Default(), cfg.Logger)
}
