// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/queue"
)

// Each way to open a gate opens it for consumers on all nodes, and for those that come later.
func TestAGateOpensForAll(t *testing.T) {
	for name, way := range map[string]struct {
		when queue.Condition
		open func(context.Context, *queue.Queue, *queue.Gate) error
	}{
		"count": {queue.WhenCount(12), func(ctx context.Context, q *queue.Queue, _ *queue.Gate) error {
			return errors.Join(q.Enqueue(ctx, "11"), q.Enqueue(ctx, "12"))
		}},
		"named": {queue.WhenNamed("go"), func(ctx context.Context, q *queue.Queue, _ *queue.Gate) error {
			return errors.Join(q.Enqueue(ctx, "11", queue.WithName("ready")), q.Enqueue(ctx, "12", queue.WithName("go")))
		}},
		"signal": {queue.WhenOpened(), func(ctx context.Context, q *queue.Queue, g *queue.Gate) error {
			return errors.Join(q.Enqueue(ctx, "11"), q.Enqueue(ctx, "12"), g.Open(ctx))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				q := queue.New(session(t, c.Node(0), coterie.WithTTL(time.Hour)), "jobs")
				taken := make(chan *queue.Item, 20)
				for i := range 12 {
					g := queue.NewGate(queue.New(session(t, c.Node(i%3), coterie.WithTTL(time.Hour)), "jobs"), way.when)
					go func() {
						item, err := g.Dequeue(t.Context())
						if err != nil {
							t.Error(err)
						}
						taken <- item
					}()
				}
				for range 10 {
					enqueue(t, q, "job")
					time.Sleep(time.Second)
				}
				c.Pause(c.Index(c.Leader()))
				time.Sleep(time.Minute)
				c.Heal()
				time.Sleep(time.Minute)
				require.Empty(t, taken)
				require.NoError(t, way.open(t.Context(), q, queue.NewGate(q, way.when)))
				for range 12 {
					require.NoError(t, (<-taken).Ack(t.Context()))
				}
				g := queue.NewGate(q, way.when)
				require.NoError(t, g.Wait(t.Context()), "it stays open")
				require.NoError(t, g.Close(t.Context()))
				if name != "named" {
					require.ErrorIs(t, g.Wait(short(t)), context.DeadlineExceeded)
				}
				require.NoError(t, g.Open(t.Context()), "regardless of its condition")
				require.NoError(t, g.Wait(t.Context()))
			})
		})
	}
}
