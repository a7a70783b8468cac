// SPDX-License-Identifier: Apache-2.0

// Queues distributes work: in order, by priority, or only when there is a reason to begin. The work of a consumer that
// crashes is done by another one.
//
// Without flags, three nodes in one process show this and check it. To run it as three processes on one machine,
// use a terminal for each:
//
//	go run ./examples/queues -name a -addr 127.0.0.1:7441 -dir /tmp/queues/a \
//		-founders a=127.0.0.1:7441,b=127.0.0.1:7442,c=127.0.0.1:7443
//	go run ./examples/queues -name b -addr 127.0.0.1:7442 -dir /tmp/queues/b \
//		-founders a=127.0.0.1:7441,b=127.0.0.1:7442,c=127.0.0.1:7443
//	go run ./examples/queues -name c -addr 127.0.0.1:7443 -dir /tmp/queues/c \
//		-founders a=127.0.0.1:7441,b=127.0.0.1:7442,c=127.0.0.1:7443
//
// Each line that you type into any of them is an item, and one of them takes it. Lines that begin with an exclamation mark
// are taken first. Kill a process that has an item: another one takes the item when the session of the first has expired.
// Stop it with Ctrl-C: another one takes the item at once.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/examples/internal/process"
	"github.com/coterie-kv/coterie/queue"
)

const done = "done/" // prefix of the keys that say which node has done an item

func main() { process.Main(demo, serve) }

// serve runs one of three nodes. It takes items until ctx ends, and enqueues typed lines.
func serve(ctx context.Context, cfg coterie.Config) error {
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Printf("%s waits for the other nodes: all %d at the first start, a majority later\n", cfg.Name, len(cfg.Founders))
	typed := make(chan string)
	go read(ctx, os.Stdin, typed)
	for {
		session, err := coterie.NewSession(ctx, node, coterie.WithTTL(5*time.Second))
		if err != nil {
			return err
		}
		fmt.Printf("%s takes items: type an item, or !item if it is urgent\n", cfg.Name)
		items := queue.New(session, "typed")
		go enqueue(session.Context(), items, typed)
		for err == nil {
			err = work(ctx, items, cfg.Name)
		}
		session.Close()
		if !errors.Is(err, coterie.ErrSessionExpired) && !errors.Is(err, coterie.ErrNotOwner) {
			return err
		}
		fmt.Printf("%s was cut off until its session expired, and opens another session\n", cfg.Name)
	}
}

// read sends typed lines.
func read(ctx context.Context, from io.Reader, typed chan<- string) {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		select {
		case typed <- lines.Text():
		case <-ctx.Done():
			return
		}
	}
}

// enqueue enqueues lines as items until ctx ends.
func enqueue(ctx context.Context, items *queue.Queue, typed <-chan string) {
	for {
		select {
		case line := <-typed:
			var opts []queue.EnqueueOption
			if urgent, is := strings.CutPrefix(line, "!"); is {
				line, opts = urgent, append(opts, queue.WithPriority(1))
			}
			if err := items.Enqueue(ctx, line, opts...); err != nil {
				fmt.Printf("%s was not enqueued, or its outcome is unknown: %v\n", line, err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// work waits for an item, works on it for some time, and acknowledges it.
func work(ctx context.Context, items *queue.Queue, name string) error {
	item, err := items.Dequeue(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s begins %s\n", name, item.Value)
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return context.Cause(ctx) // the end of the session gives the item back
	}
	if err := item.Ack(ctx, coterie.OpPut(done+item.Value, name)); err != nil {
		return err
	}
	fmt.Printf("%s has done %s\n", name, item.Value)
	return nil
}
