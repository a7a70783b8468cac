// SPDX-License-Identifier: Apache-2.0

// Package queue distributes work among the instances of a service that share a coterie cluster. A [Queue] orders its
// items by priority, then by time. A [Gate] holds consumers back until there is a reason to begin.
//
//	q := queue.New(session, "jobs")
//	err := q.Enqueue(ctx, "resize picture 42")
//	…
//	item, err := q.Dequeue(ctx)
//	// work
//	err = item.Ack(ctx)
//
// # Delivery
//
// A consumer takes an item with [Queue.Dequeue]. The item stays in the queue, claimed by the session of its consumer,
// until [Item.Ack] removes it. It returns to its old place if the consumer gives it back with [Item.Nack], crashes, or
// is cut off longer than the TTL of its session's lease. So one consumer has an item at a time, and each item is done
// at least once. Operations that are passed to [Item.Ack] are executed with the acknowledgement, exactly once.
//
// # Costs
//
// An item costs three writes: one each to enqueue, to claim and to acknowledge it. A Queue is not a message broker:
// every node keeps all items in memory, and all writes go through one leader.
//
// # Contexts
//
// Every call with a context blocks until the cluster answers: without a quorum, until the context ends. A context
// bounds its call only: an item that was taken stays with its consumer when the context of Dequeue ends.
//
// This package uses only the exported API of package coterie, so it can be copied and changed.
package queue
