// SPDX-License-Identifier: Apache-2.0

// Job has one instance do a job, the leader, and all instances use its result. When the leader is
// cut off or killed, another goes on where it was; and the one that was leader, and does not know,
// cannot overwrite what its successor has found.
//
// Without flags, three nodes in one process show and check that. As three processes on one machine,
// each in a terminal of its own:
//
//	go run ./examples/job -name a -addr 127.0.0.1:7471 -dir /tmp/job/a \
//		-founders a=127.0.0.1:7471,b=127.0.0.1:7472,c=127.0.0.1:7473
//	go run ./examples/job -name b -addr 127.0.0.1:7472 -dir /tmp/job/b \
//		-founders a=127.0.0.1:7471,b=127.0.0.1:7472,c=127.0.0.1:7473
//	go run ./examples/job -name c -addr 127.0.0.1:7473 -dir /tmp/job/c \
//		-founders a=127.0.0.1:7471,b=127.0.0.1:7472,c=127.0.0.1:7473
//
// Each tells when it leads, and when it has the first result of a leader. Kill the leader, or stop
// it for a while with SIGSTOP: another goes on, and no result is ever followed by an older one.
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
	candidates = "job/leader" // where candidates queue
	result     = "job/result" // the key that has the result
)

// A report is the result of the job: how many pieces are done, and what they come to.
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
	fmt.Printf("%s waits for the others: all %d nodes for the first time, a majority later\n", cfg.Name, len(cfg.Founders))
	return run(ctx, node, 5*time.Second, func(*term) {})
}

// A term is a node's time as the leader. Its context ends with it, and has its guard.
type term struct {
	ctx   context.Context
	node  *coterie.Node
	name  string
	token int64
}

// run is what every instance does: it follows the result, and does the job when it is its turn.
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

// follow tells of each leader's first result, and checks that none is overwritten by an older one.
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
			fmt.Printf("%s takes over the result of %s, which has done piece %d\n", name, r.By, r.Pieces)
		}
		last = r
	}
	return nil
}

// work goes on where the leader before has ended, until this one leads no more. Nobody else writes
// the result meanwhile, so it is read once.
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
	fmt.Printf("%s leads, with fencing token %d, and goes on after piece %d\n", t.name, t.token, r.Pieces)
	defer fmt.Printf("%s leads no more\n", t.name)
	for tick := time.Tick(50 * time.Millisecond); ; {
		r = t.after(r)
		written, err := t.publish(t.ctx, r)
		if err != nil {
			return err
		}
		if !written {
			return coterie.ErrNotOwner // it leads no more, and its context is about to say so
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

// publish writes a result on the condition that this leader leads still, and tells whether it did.
func (t *term) publish(ctx context.Context, r report) (written bool, err error) {
	text, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	answer, err := t.node.Txn(ctx).If(coterie.GuardFromContext(t.ctx)).Then(coterie.OpPut(result, string(text))).Commit()
	return err == nil && answer.Succeeded, err
}
