// SPDX-License-Identifier: Apache-2.0

// Job runs a job in one instance, the leader, and all instances use its result. If the leader is cut off or killed,
// another one continues the job. A former leader that has not noticed cannot overwrite the result of its successor.
//
// Without flags, three nodes in one process show this and check it. To run it as three processes on one machine,
// use a terminal for each:
//
//	go run ./examples/job -name a -addr 127.0.0.1:7471 -dir /tmp/job/a \
//		-founders a=127.0.0.1:7471,b=127.0.0.1:7472,c=127.0.0.1:7473
//	go run ./examples/job -name b -addr 127.0.0.1:7472 -dir /tmp/job/b \
//		-founders a=127.0.0.1:7471,b=127.0.0.1:7472,c=127.0.0.1:7473
//	go run ./examples/job -name c -addr 127.0.0.1:7473 -dir /tmp/job/c \
//		-founders a=127.0.0.1:7471,b=127.0.0.1:7472,c=127.0.0.1:7473
//
// Each process prints when it leads, and when it has the first result of a new leader. Kill the leader, or stop it for a
// while with SIGSTOP: another process continues, and no result is ever followed by an older one.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/examples/internal/process"
	"github.com/coterie-kv/coterie/mirror"
)

const (
	candidates = "job/leader" // the name of the election
	result     = "job/result" // the key of the result
)

// A report is the result of the job: the number of pieces that are done, and their sum.
type report struct {
	Pieces, Total int
	By            string
	Token         int64
}

func main() { process.Main(demo, serve) }

// serve runs one of three nodes until ctx ends.
func serve(ctx context.Context, cfg coterie.Config) error {
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Printf("%s waits for the other nodes: all %d at the first start, a majority later\n", cfg.Name, len(cfg.Founders))
	return run(ctx, node, 5*time.Second, func(*term) {})
}

// A term is the time in which a node leads. Its context ends with it, and carries the guard of the leadership.
type term struct {
	ctx   context.Context
	node  *coterie.Node
	name  string
	token int64
}

// run is the work of every instance: it follows the result, and does the job while it leads.
func run(ctx context.Context, node *coterie.Node, ttl time.Duration, began func(*term)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	name := node.Status().Name
	go func() { cancel(follow(ctx, node, name)) }()
	return coterie.RunAsLeader(ctx, node, candidates, name, func(ctx context.Context, token int64) error {
		t := &term{ctx, node, name, token}
		began(t)
		return t.work()
	}, coterie.WithTTL(ttl))
}

// follow prints the first result of each leader, and checks that no result is overwritten by an older one.
func follow(ctx context.Context, node *coterie.Node, name string) error {
	index, err := mirror.New(ctx, node, result, mirror.JSON[report])
	if err != nil {
		return err
	}
	defer index.Close()
	var last report
	for s, err := range index.Follow(ctx) {
		if err != nil {
			return err
		}
		r, _ := s.Get(result)
		if r.Token < last.Token || r.Pieces < last.Pieces || r.Total != r.Pieces*(r.Pieces+1)/2 {
			return fmt.Errorf("%s has %+v after %+v", name, r, last)
		}
		if r.Token > last.Token && r.By != name {
			fmt.Printf("%s has the first result of %s, piece %d\n", name, r.By, r.Pieces)
		}
		last = r
	}
	return nil
}

// work continues the job of the previous leader until this node no longer leads. No other node writes the result
// meanwhile, so it reads the result once.
func (t *term) work() error {
	var r report
	stored, err := t.node.Get(t.ctx, result)
	if err != nil {
		return err
	}
	for _, kv := range stored.KVs {
		if err := json.Unmarshal([]byte(kv.Value), &r); err != nil {
			return err
		}
	}
	fmt.Printf("%s leads with fencing token %d and continues after piece %d\n", t.name, t.token, r.Pieces)
	defer fmt.Printf("%s no longer leads\n", t.name)
	for tick := time.Tick(50 * time.Millisecond); ; {
		r = t.after(r)
		written, err := t.publish(t.ctx, r)
		if err != nil {
			return err
		}
		if !written {
			return coterie.ErrNotOwner // it no longer leads, and its context is about to end
		}
		select {
		case <-tick:
		case <-t.ctx.Done():
			return context.Cause(t.ctx)
		}
	}
}

// after does the next piece of the job.
func (t *term) after(r report) report {
	return report{Pieces: r.Pieces + 1, Total: r.Total + r.Pieces + 1, By: t.name, Token: t.token}
}

// publish writes a result if this node still leads, and reports whether it did.
func (t *term) publish(ctx context.Context, r report) (written bool, err error) {
	text, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	answer, err := t.node.Txn(ctx).If(coterie.GuardFromContext(t.ctx)).Then(coterie.OpPut(result, string(text))).Commit()
	return err == nil && answer.Succeeded, err
}
