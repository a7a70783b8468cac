// SPDX-License-Identifier: Apache-2.0

package queue_test

import (
	"context"
	"fmt"
	"log"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/queue"
)

// open opens a single node in memory, and a queue.
func open(ctx context.Context) (*coterie.Node, *queue.Queue) {
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	s, err := coterie.NewSession(ctx, n)
	if err != nil {
		log.Fatal(err)
	}
	return n, queue.New(s, "jobs")
}

// Urgent items come first. An item that is given back returns to its old place.
func ExampleQueue() {
	ctx := context.Background()
	n, q := open(ctx)
	defer n.Close()

	for _, job := range []string{"sweep", "mop"} {
		if err := q.Enqueue(ctx, job); err != nil {
			log.Fatal(err)
		}
	}
	if err := q.Enqueue(ctx, "extinguish", queue.WithPriority(10)); err != nil {
		log.Fatal(err)
	}
	for attempt := 1; attempt <= 4; attempt++ {
		item, err := q.Dequeue(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if attempt == 2 {
			fmt.Println(item.Value, "is given back")
			err = item.Nack(ctx)
		} else {
			fmt.Println(item.Value, "is done")
			err = item.Ack(ctx)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// extinguish is done
	// sweep is given back
	// sweep is done
	// mop is done
}

// The result is written with the acknowledgement, exactly once. A second Ack fails.
func ExampleItem_Ack() {
	ctx := context.Background()
	n, q := open(ctx)
	defer n.Close()

	if err := q.Enqueue(ctx, "6 * 7"); err != nil {
		log.Fatal(err)
	}
	item, err := q.Dequeue(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := item.Ack(ctx, coterie.OpPut("results/"+item.Value, "42")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(item.Ack(ctx) != nil)
	// Output: true
}

// Consumers begin when two items wait.
func ExampleGate() {
	ctx := context.Background()
	n, q := open(ctx)
	defer n.Close()

	g := queue.NewGate(q, queue.WhenCount(2))
	done := make(chan string)
	go func() {
		for range 2 {
			item, err := g.Dequeue(ctx)
			if err != nil {
				log.Fatal(err)
			}
			done <- item.Value
		}
	}()
	for _, part := range []string{"first part", "second part"} {
		if err := q.Enqueue(ctx, part); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(<-done)
	fmt.Println(<-done)
	// Output:
	// first part
	// second part
}
