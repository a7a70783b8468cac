// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/queue"
)

// demo enqueues items on one node and takes them on another.
func demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cluster, err := coterie.OpenCluster(ctx, 3, coterie.Config{InMemory: true})
	if err != nil {
		return fmt.Errorf("open three nodes: %w", err)
	}
	defer cluster.Close()
	var sessions []*coterie.Session
	for _, node := range cluster.Nodes() {
		session, err := coterie.NewSession(ctx, node, coterie.WithTTL(2*time.Second))
		if err != nil {
			return fmt.Errorf("open a session: %w", err)
		}
		defer session.Close()
		sessions = append(sessions, session)
	}
	for _, step := range []struct {
		name string
		run  func(ctx context.Context, from, to *queue.Queue) error
	}{
		{"in order", inOrder},
		{"by priority", byPriority},
		{"three items ready", threeReady},
		{"a named item present", namedPresent},
		{"a call of Open", opened},
	} {
		fmt.Printf("%s:\n", step.name)
		if err := step.run(ctx, queue.New(sessions[0], step.name), queue.New(sessions[1], step.name)); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	if err := crash(ctx, sessions); err != nil {
		return fmt.Errorf("a consumer crashes: %w", err)
	}
	return nil
}

func inOrder(ctx context.Context, from, to *queue.Queue) error {
	if err := put(ctx, from, []string{"cut", "sew", "iron"}); err != nil {
		return err
	}
	if err := expect(ctx, to.Dequeue, "cut", "sew", "iron"); err != nil {
		return err
	}
	if waiting, taken, err := from.Len(ctx); err != nil || waiting+taken > 0 {
		return fmt.Errorf("%d items wait and %d are taken, though all were acknowledged: %v", waiting, taken, err)
	}
	return nil
}

func byPriority(ctx context.Context, from, to *queue.Queue) error {
	err := errors.Join(
		put(ctx, from, []string{"sweep", "mop"}),
		put(ctx, from, []string{"decorate"}, queue.WithPriority(-1)),
		put(ctx, from, []string{"extinguish"}, queue.WithPriority(9)),
		put(ctx, from, []string{"dry"}),
	)
	if err != nil {
		return err
	}
	return expect(ctx, to.Dequeue, "extinguish", "sweep", "mop", "dry", "decorate")
}

func threeReady(ctx context.Context, from, to *queue.Queue) error {
	if err := put(ctx, from, []string{"tenor", "alto"}); err != nil {
		return err
	}
	return gated(ctx, queue.NewGate(to, queue.WhenCount(3)), func() error {
		return put(ctx, from, []string{"bass"})
	}, "tenor", "alto", "bass")
}

func namedPresent(ctx context.Context, from, to *queue.Queue) error {
	if err := put(ctx, from, []string{"page 1", "page 2", "page 3"}); err != nil {
		return err
	}
	return gated(ctx, queue.NewGate(to, queue.WhenNamed("index")), func() error {
		return put(ctx, from, []string{"a list of pages"}, queue.WithName("index"), queue.WithPriority(1))
	}, "a list of pages", "page 1", "page 2", "page 3")
}

func opened(ctx context.Context, from, to *queue.Queue) error {
	if err := put(ctx, from, []string{"runner 1", "runner 2"}); err != nil {
		return err
	}
	starter := queue.NewGate(from, queue.WhenOpened()) // the same gate, on another node
	return gated(ctx, queue.NewGate(to, queue.WhenOpened()), func() error {
		return starter.Open(ctx)
	}, "runner 1", "runner 2")
}

// gated checks that a gate is closed until open opens it, and that its Dequeue then returns certain items.
func gated(ctx context.Context, gate *queue.Gate, open func() error, values ...string) error {
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if item, err := gate.Dequeue(short); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("an item got through the gate: %v, %v", item, err)
	}
	fmt.Println("  items wait, and the gate is closed")
	given := make(chan error, 1)
	go func() { given <- expect(ctx, gate.Dequeue, values...) }()
	if err := open(); err != nil {
		return err
	}
	return <-given
}

// crash crashes node3, which has the first of two items. When node3 resumes, it does not know that another node has its
// item.
func crash(ctx context.Context, sessions []*coterie.Session) error {
	fmt.Println("a consumer crashes:")
	from, to, crashing := queue.New(sessions[0], "crash"), queue.New(sessions[1], "crash"), queue.New(sessions[2], "crash")
	if err := put(ctx, from, []string{"drill", "sand"}); err != nil {
		return err
	}
	lost, err := crashing.Dequeue(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	sessions[2].Orphan() // nothing is renewed, revoked or given back, as after a crash
	fmt.Printf("  node3 takes %s with token %d, and crashes\n", lost.Value, lost.Token())
	if err := expect(ctx, to.Dequeue, "sand"); err != nil {
		return err
	}
	again, err := to.Dequeue(ctx)
	if err != nil {
		return err
	}
	took := time.Since(begin).Round(time.Millisecond)
	fmt.Printf("  node2 has %s %v later, with token %d\n", again.Value, took, again.Token())
	if again.Value != lost.Value || again.Token() <= lost.Token() {
		return fmt.Errorf("it should be %s, with a token above %d", lost.Value, lost.Token())
	}
	if err := lost.Ack(ctx, coterie.OpPut(done+lost.Value, "node3")); !errors.Is(err, coterie.ErrNotOwner) {
		return fmt.Errorf("node3 was not refused: %v", err)
	}
	fmt.Println("  node3 resumes, and its acknowledgement is refused")
	if err := acknowledge(ctx, again); err != nil {
		return err
	}
	read, err := sessions[0].Node().Get(ctx, done+again.Value)
	if err != nil {
		return err
	}
	if len(read.KVs) != 1 || read.KVs[0].Value != "node2" || read.KVs[0].Version != 1 {
		return fmt.Errorf("node2 did not do it exactly once: %v", read.KVs)
	}
	return nil
}

// acknowledge acknowledges an item, and records in the same transaction that node2 has done it.
func acknowledge(ctx context.Context, item *queue.Item) error {
	if err := item.Ack(ctx, coterie.OpPut(done+item.Value, "node2")); err != nil {
		return err
	}
	fmt.Printf("  node2 has done %s\n", item.Value)
	return nil
}

// expect takes and acknowledges items, and checks their order.
func expect(ctx context.Context, dequeue func(context.Context) (*queue.Item, error), values ...string) error {
	for _, value := range values {
		item, err := dequeue(ctx)
		if err != nil {
			return err
		}
		if err := acknowledge(ctx, item); err != nil {
			return err
		}
		if item.Value != value {
			return fmt.Errorf("it should have been %s", value)
		}
	}
	return nil
}

// put enqueues values.
func put(ctx context.Context, q *queue.Queue, values []string, opts ...queue.EnqueueOption) error {
	for _, value := range values {
		if err := q.Enqueue(ctx, value, opts...); err != nil {
			return err
		}
		fmt.Printf("  %s is enqueued\n", value)
	}
	return nil
}
