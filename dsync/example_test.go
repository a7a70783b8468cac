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

// open opens a single node in memory, and a session.
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

// Readers hold the lock together. A writer is alone, and its guarded write is rejected if it has lost the lock.
func ExampleRWMutex() {
	ctx := context.Background()
	n, s := open(ctx)
	defer n.Close()
	defer s.Close()

	reader := dsync.NewRWMutex(s, "locks/prices")
	if err := reader.RLock(ctx); err != nil {
		log.Fatal(err)
	}
	writer := dsync.NewRWMutex(s, "locks/prices")
	err := writer.TryLock(ctx)
	fmt.Println("held by a reader:", errors.Is(err, coterie.ErrLocked)) // the text of err names the reader
	if err := reader.RUnlock(ctx); err != nil {
		log.Fatal(err)
	}
	if err := writer.Lock(ctx); err != nil {
		log.Fatal(err)
	}
	r, err := n.Txn(ctx).If(writer.Guard()).Then(coterie.OpPut("prices/apple", "3")).Commit()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("written:", r.Succeeded)
	if err := writer.Unlock(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// held by a reader: true
	// written: true
}

// Three backups may run at a time; a large one counts as two.
func ExampleSemaphore() {
	ctx := context.Background()
	n, s := open(ctx)
	defer n.Close()
	defer s.Close()

	large := dsync.NewSemaphore(s, "permits/backups", 3)
	if err := large.Acquire(ctx, 2); err != nil {
		log.Fatal(err)
	}
	other := dsync.NewSemaphore(s, "permits/backups", 3)
	err := other.TryAcquire(ctx, 2)
	fmt.Println(errors.Is(err, coterie.ErrLocked))
	if err := large.Release(ctx); err != nil {
		log.Fatal(err)
	}
	// A second TryAcquire could find the permits that the failed one still occupies for a moment.
	fmt.Println(other.Acquire(ctx, 2))
	// Output:
	// true
	// <nil>
}

// The first instance runs the migration. All instances get its outcome.
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

// A waiter continues when the barrier is lifted.
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

// Two participants begin together and continue together.
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

// An addition returns the new sum.
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

// Each job gets a key with the next number.
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
