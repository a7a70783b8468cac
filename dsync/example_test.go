// SPDX-License-Identifier: Apache-2.0

package dsync_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/dsync"
)

// open opens a node alone, in memory, with a session.
func open(ctx context.Context) (*coterie.Node, *coterie.Session) {
	n, err := coterie.Open(ctx, coterie.Config{InMemory: true})
	if err != nil {
		log.Fatal(err)
	}
	s, err := coterie.NewSession(ctx, n)
	if err != nil {
		log.Fatal(err)
	}
	return n, s
}

// Many read together; a writer is alone, and what it writes is refused once it has lost the lock.
func ExampleRWMutex() {
	ctx := context.Background()
	n, s := open(ctx)
	defer n.Close()
	defer s.Close()

	m := dsync.NewRWMutex(s, "locks/prices")
	first, err := m.RLock(ctx)
	if err != nil {
		log.Fatal(err)
	}
	second, err := m.RLock(ctx)
	if err != nil {
		log.Fatal(err)
	}
	_, err = m.TryLock(ctx)
	fmt.Println("held by readers:", errors.Is(err, coterie.ErrLocked)) // err tells by which
	for _, reader := range []*dsync.Hold{first, second} {
		if err := reader.Release(ctx); err != nil {
			log.Fatal(err)
		}
	}
	writer, err := m.Lock(ctx)
	if err != nil {
		log.Fatal(err)
	}
	r, err := n.Txn(ctx).If(writer.Guard()).Then(coterie.OpPut("prices/apple", "3")).Commit()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("written:", r.Succeeded)
	if err := writer.Release(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// held by readers: true
	// written: true
}

// Three permits, of which one call takes two.
func ExampleSemaphore() {
	ctx := context.Background()
	n, s := open(ctx)
	defer n.Close()
	defer s.Close()

	m := dsync.NewSemaphore(s, "permits/backups", 3)
	h, err := m.Acquire(ctx, 2)
	if err != nil {
		log.Fatal(err)
	}
	_, err = m.TryAcquire(ctx, 2)
	fmt.Println(errors.Is(err, coterie.ErrLocked))
	if err := h.Release(ctx); err != nil {
		log.Fatal(err)
	}
	_, err = m.TryAcquire(ctx, 2)
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}

// The migration is done by whoever comes first, and what came of it is known to all.
func ExampleOnce() {
	ctx := context.Background()
	n, s := open(ctx)
	defer n.Close()
	defer s.Close()

	for _, instance := range []string{"a", "b"} {
		outcome, err := dsync.NewOnce(s, "migrations/7").Do(ctx, func(context.Context) (string, error) {
			return "migrated by " + instance, nil
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(instance+":", outcome)
	}
	// Output:
	// a: migrated by a
	// b: migrated by a
}

// Whoever waits goes on when the barrier is lifted.
func ExampleBarrier() {
	ctx := context.Background()
	n, s := open(ctx)
	defer n.Close()
	defer s.Close()

	b := dsync.NewBarrier(n, "barriers/start")
	if err := b.Raise(ctx); err != nil {
		log.Fatal(err)
	}
	passed := make(chan error)
	go func() { passed <- b.Wait(ctx) }()
	fmt.Println("lifting")
	if err := b.Lift(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("passed:", <-passed)
	// Output:
	// lifting
	// passed: <nil>
}

// Two begin together, and go on together.
func ExampleDoubleBarrier() {
	ctx := context.Background()
	n, s := open(ctx)
	defer n.Close()
	defer s.Close()

	done := make(chan error)
	for range 2 {
		go func() {
			round, err := dsync.NewDoubleBarrier(s, "barriers/load", 2).Enter(ctx)
			if err == nil {
				err = round.Leave(ctx) // after the work
			}
			done <- err
		}()
	}
	fmt.Println(<-done, <-done)
	// Output: <nil> <nil>
}

func ExampleCounter() {
	ctx := context.Background()
	n, s := open(ctx)
	defer n.Close()
	defer s.Close()

	c := dsync.NewCounter(n, "counters/orders")
	for range 2 {
		sum, err := c.Add(ctx, 5)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(sum)
	}
	// Output:
	// 5
	// 10
}

func ExampleSequence() {
	ctx := context.Background()
	n, s := open(ctx)
	defer n.Close()
	defer s.Close()

	jobs := dsync.NewSequence(n, "jobs")
	for _, job := range []string{"compile", "test"} {
		key, err := jobs.Append(ctx, job)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(key, job)
	}
	// Output:
	// jobs/00000000000000000001 compile
	// jobs/00000000000000000002 test
}
