// SPDX-License-Identifier: Apache-2.0

// Lock shares a lock among instances. They get it in the order of their requests. A holder may lose the lock without
// noticing, for example while its process is stopped. Therefore its writes have the guard of the lock as a condition.
//
// Without flags, three nodes in one process show this and check it. To run it as three processes on one machine,
// use a terminal for each:
//
//	go run ./examples/lock -name a -addr 127.0.0.1:7421 -dir /tmp/lock/a \
//		-founders a=127.0.0.1:7421,b=127.0.0.1:7422,c=127.0.0.1:7423
//	go run ./examples/lock -name b -addr 127.0.0.1:7422 -dir /tmp/lock/b \
//		-founders a=127.0.0.1:7421,b=127.0.0.1:7422,c=127.0.0.1:7423
//	go run ./examples/lock -name c -addr 127.0.0.1:7423 -dir /tmp/lock/c \
//		-founders a=127.0.0.1:7421,b=127.0.0.1:7422,c=127.0.0.1:7423
//
// Each process acquires the lock again and again, and prints its fencing token, which grows with each turn. Kill the
// holder: the others continue when its session has expired.
package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/examples/internal/process"
)

const (
	prefix = "lock"  // the name of the lock
	count  = "count" // the key that the lock protects
)

func main() { process.Main(demo, serve) }

// serve runs one of three nodes. It acquires the lock again and again until ctx ends.
func serve(ctx context.Context, cfg coterie.Config) error {
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Printf("%s waits for the other nodes: all %d at the first start, a majority later\n", cfg.Name, len(cfg.Founders))
	for {
		session, err := coterie.NewSession(ctx, node, coterie.WithTTL(5*time.Second))
		if err != nil {
			return err
		}
		for mutex := coterie.NewMutex(session, prefix); err == nil; {
			err = turn(ctx, node, mutex, time.Second/2)
		}
		session.Close()
		if !errors.Is(err, coterie.ErrSessionExpired) && !errors.Is(err, coterie.ErrNotOwner) {
			return err
		}
		fmt.Printf("%s was cut off until its session expired, and opens another session\n", cfg.Name)
	}
}

// turn acquires the lock, counts, and holds the lock a moment longer.
func turn(ctx context.Context, node *coterie.Node, mutex *coterie.Mutex, moment time.Duration) error {
	return mutex.Do(ctx, func(ctx context.Context, token int64) error {
		n, err := add(ctx, node, mutex)
		if err != nil {
			return err
		}
		fmt.Printf("%s has the lock with fencing token %d and counts to %d\n", node.Status().Name, token, n)
		select {
		case <-time.After(moment):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// add adds one to the count. The guard refuses the write if the mutex has lost the lock, so the count that add has read is
// still the present one when it writes.
func add(ctx context.Context, node *coterie.Node, mutex *coterie.Mutex) (n int, err error) {
	read, err := node.Get(ctx, count)
	if err != nil {
		return 0, err
	}
	if len(read.KVs) > 0 {
		if n, err = strconv.Atoi(read.KVs[0].Value); err != nil {
			return 0, err
		}
	}
	n++
	r, err := node.Txn(ctx).If(mutex.Guard()).Then(coterie.OpPut(count, strconv.Itoa(n))).Commit()
	if err == nil && !r.Succeeded {
		err = coterie.ErrNotOwner
	}
	return n, err
}

// demo lets three nodes take turns. Then one of them loses the lock without noticing.
func demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cluster, err := coterie.OpenCluster(ctx, 3, coterie.Config{InMemory: true})
	if err != nil {
		return fmt.Errorf("open three nodes: %w", err)
	}
	defer cluster.Close()
	nodes := cluster.Nodes()
	sessions, mutexes := make([]*coterie.Session, len(nodes)), make([]*coterie.Mutex, len(nodes))
	for i, node := range nodes {
		if sessions[i], err = coterie.NewSession(ctx, node); err != nil {
			return fmt.Errorf("open a session: %w", err)
		}
		defer sessions[i].Close()
		mutexes[i] = coterie.NewMutex(sessions[i], prefix)
	}

	const turns = 2
	ended := make(chan error, len(nodes))
	for i, node := range nodes {
		go func() {
			var err error
			for range turns {
				err = errors.Join(err, turn(ctx, node, mutexes[i], 0))
			}
			ended <- err
		}()
	}
	for range nodes {
		err = errors.Join(err, <-ended)
	}
	if err != nil {
		return fmt.Errorf("take turns: %w", err)
	}

	if err := inOrder(ctx, nodes[0], mutexes); err != nil {
		return fmt.Errorf("wait in order: %w", err)
	}

	// Revoking the lease ends the lock, as its expiry does if it is not renewed in time.
	stale, next := mutexes[0], mutexes[1]
	err = stale.Lock(ctx)
	if err == nil {
		_, err = nodes[2].Revoke(ctx, sessions[0].Lease())
	}
	if err == nil {
		err = next.Lock(ctx)
	}
	if err != nil {
		return fmt.Errorf("lose the lock: %w", err)
	}
	fmt.Printf("node1 has lost the lock of token %d without noticing; node2 has it with token %d\n",
		stale.Token(), next.Token())
	if stale.Token() >= next.Token() {
		return errors.New("lose the lock: the token has not grown")
	}
	if _, err := add(ctx, nodes[0], stale); !errors.Is(err, coterie.ErrNotOwner) {
		return fmt.Errorf("write without the lock: it was not refused: %v", err)
	}
	fmt.Println("the write of node1 is refused")
	n, err := add(ctx, nodes[1], next)
	if err != nil {
		return fmt.Errorf("write with the lock: %w", err)
	}
	fmt.Printf("node2 counts to %d\n", n)
	if n != turns*len(nodes)+1 {
		return fmt.Errorf("write with the lock: %d turns were taken before", turns*len(nodes))
	}
	return nil
}

// inOrder checks the order of waiters: node1 holds the lock, and node3 requests it before node2.
func inOrder(ctx context.Context, node *coterie.Node, mutexes []*coterie.Mutex) error {
	holder, got, ended := mutexes[0], make(chan int, 2), make(chan error, 2)
	if err := holder.Lock(ctx); err != nil {
		return err
	}
	for i, next := range []*coterie.Mutex{mutexes[2], mutexes[1]} {
		go func() {
			ended <- next.Do(ctx, func(context.Context, int64) error {
				got <- i
				return nil
			})
		}()
		for queue, err := range coterie.Follow(ctx, node, prefix+"/") {
			if err != nil {
				return err
			}
			if len(queue.KVs) == i+2 {
				break // its request is in the queue
			}
		}
	}
	if err := errors.Join(holder.Unlock(ctx), <-ended, <-ended); err != nil {
		return err
	}
	if first, second := <-got, <-got; first > second {
		return errors.New("the later request was granted first")
	}
	fmt.Println("node3 requested the lock before node2, and had it before node2")
	return nil
}
