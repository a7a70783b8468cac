// SPDX-License-Identifier: Apache-2.0

// Lock takes turns at a lock, in the order in which it was asked for. Its holder may lose it without
// knowing, as when the process is stopped for a while; so what it writes is guarded by the lock itself.
//
// Without flags, three nodes in one process show and check that. As three processes on one machine,
// each in a terminal of its own:
//
//	go run ./examples/lock -name a -addr 127.0.0.1:7421 -dir /tmp/lock/a \
//		-founders a=127.0.0.1:7421,b=127.0.0.1:7422,c=127.0.0.1:7423
//	go run ./examples/lock -name b -addr 127.0.0.1:7422 -dir /tmp/lock/b \
//		-founders a=127.0.0.1:7421,b=127.0.0.1:7422,c=127.0.0.1:7423
//	go run ./examples/lock -name c -addr 127.0.0.1:7423 -dir /tmp/lock/c \
//		-founders a=127.0.0.1:7421,b=127.0.0.1:7422,c=127.0.0.1:7423
//
// Each takes the lock again and again, and prints its fencing token, which grows with each turn.
// Kill the holder: the others go on when its session has expired.
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
	prefix = "lock"  // where those who want the lock queue
	count  = "count" // the key that the lock protects
)

func main() { process.Main(demo, serve) }

// serve runs one of three nodes: it takes turns until ctx ends.
func serve(ctx context.Context, cfg coterie.Config) error {
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Printf("%s waits for the others: all %d nodes for the first time, a majority later\n", cfg.Name, len(cfg.Founders))
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
		fmt.Printf("%s was cut off for so long that its session is over, and opens another\n", cfg.Name)
	}
}

// turn waits for the lock, counts, and holds the lock a moment longer.
func turn(ctx context.Context, node *coterie.Node, mutex *coterie.Mutex, moment time.Duration) error {
	return mutex.Do(ctx, func(ctx context.Context, token int64) error {
		n, err := add(ctx, node, mutex)
		if err != nil {
			return err
		}
		fmt.Printf("%s has the lock, with fencing token %d, and counts to %d\n", node.Status().Name, token, n)
		select {
		case <-time.After(moment):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// add adds one to the count. What it read is still so when it writes, if it has the lock still; and
// if not, it does not write.
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

// demo has three nodes take turns, and one of them lose the lock without knowing.
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
		return fmt.Errorf("wait in line: %w", err)
	}

	// The lease goes, as it does when it is not renewed in time, and the lock with it.
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
	fmt.Printf("node1 has lost the lock of token %d, and does not know; node2 has it, with token %d\n",
		stale.Token(), next.Token())
	if stale.Token() >= next.Token() {
		return errors.New("lose the lock: the token has not grown")
	}
	if _, err := add(ctx, nodes[0], stale); !errors.Is(err, coterie.ErrNotOwner) {
		return fmt.Errorf("write without the lock: it was not refused: %v", err)
	}
	fmt.Println("node1 counts, and is refused")
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

// inOrder has node1 hold the lock and the others ask for it, node3 before node2, and checks that they
// get it in that order.
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
		for line, err := range coterie.Follow(ctx, node, prefix+"/") {
			if err != nil {
				return err
			}
			if len(line.KVs) == i+2 {
				break // it stands behind those who were there
			}
		}
	}
	if err := errors.Join(holder.Unlock(ctx), <-ended, <-ended); err != nil {
		return err
	}
	if first, second := <-got, <-got; first > second {
		return errors.New("who has asked later was first")
	}
	fmt.Println("node3 has asked before node2, and had the lock before node2")
	return nil
}
