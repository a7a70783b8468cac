// SPDX-License-Identifier: Apache-2.0

// Package queue hands work out among the instances of a service that share a coterie cluster: a
// [Queue], by priority and then in order, and a [Gate], before which takers wait until there is
// reason to begin. It stands on exported calls of package coterie alone, and may be copied and
// changed.
//
//	q := queue.New(session, "jobs")
//	err := q.Enqueue(ctx, "resize picture 42")
//	…
//	item, err := q.Dequeue(ctx)
//	// work
//	err = item.Ack(ctx)
//
// An item that is taken stays in the queue, claimed by its taker's session, until it is
// acknowledged. It is at its old place again when the taker gives it back, crashes, or is cut off
// for as long as its session's lease lives. So each item is had by one taker at a time, and is done
// at least once; what [Item.Ack] writes to the store along with the acknowledgement is written
// exactly once.
//
// An item costs three writes: to enqueue, to claim and to acknowledge it. Do not use it as a
// message broker: all items are in the memory of every node, and all writes go through one leader.
package queue
