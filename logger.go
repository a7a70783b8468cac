// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"log/slog"

	"github.com/coterie-kv/coterie/internal/logqueue"
)

// startLogger puts a queue before the handler of Config.Logger, so that the node neither waits for the handler
// nor fails with it.
func (n *Node) startLogger() {
	h := n.cfg.Logger.Handler()
	if h == slog.DiscardHandler {
		return
	}
	n.lines = logqueue.New(logqueue.Config{
		To:      h,
		Dropped: func() { n.meter.Add(MetricLogDropped, 1) },
		Resumed: func(missed int) { n.cfg.Logger.Warn("lines of the log were dropped", "dropped", missed) },
	})
	n.cfg.Logger = slog.New(n.lines.Handler()).With("node", n.cfg.Name)
}

// stopLogger waits for a moment until the handler has taken the lines that are queued.
func (n *Node) stopLogger(ctx context.Context) {
	if n.lines == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	n.lines.Close(ctx)
}
