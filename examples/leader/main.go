// SPDX-License-Identifier: Apache-2.0

// Leader runs a job in one instance at a time: when the one that leads stops or dies, another goes
// on with it.
//
// Without flags, three nodes in one process show and check that. As three processes on one machine,
// each in a terminal of its own:
//
//	go run ./examples/leader -name a -addr 127.0.0.1:7411 -dir /tmp/leader/a \
//		-founders a=127.0.0.1:7411,b=127.0.0.1:7412,c=127.0.0.1:7413
//	go run ./examples/leader -name b -addr 127.0.0.1:7412 -dir /tmp/leader/b \
//		-founders a=127.0.0.1:7411,b=127.0.0.1:7412,c=127.0.0.1:7413
//	go run ./examples/leader -name c -addr 127.0.0.1:7413 -dir /tmp/leader/c \
//		-founders a=127.0.0.1:7411,b=127.0.0.1:7412,c=127.0.0.1:7413
//
// Each prints when it begins and ceases to lead, and whom it follows. Stop the leader, or kill it:
// another leads, with a higher token. Start it again: it follows. A job that fails does not end the
// campaign: another instance leads, and the one that failed is a candidate again after a pause.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/examples/internal/process"
)

const (
	prefix = "leader" // where candidates queue
	job    = "job"    // the key that the job writes
)

func main() { process.Main(demo, serve) }

// serve runs one of three nodes. When ctx ends it ceases to lead, and only then closes the node.
func serve(ctx context.Context, cfg coterie.Config) error {
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Printf("%s waits for the other nodes: all %d at the first start, a majority later\n", cfg.Name, len(cfg.Founders))
	return lead(ctx, node, func(term) error { return nil })
}

// A term is a node's time as the leader.
type term struct {
	node  *coterie.Node
	token int64
}

// lead does the job whenever it is this node's turn, until ctx ends. An error of the job makes this node
// resign and, after a pause, campaign again; coterie.ErrStopCampaign would end its campaign.
func lead(ctx context.Context, node *coterie.Node, began func(term) error) error {
	name := node.Status().Name
	go follow(ctx, node)
	return coterie.RunAsLeader(ctx, node, prefix, name, func(ctx context.Context, token int64) error {
		fmt.Printf("%s leads, with fencing token %d\n", name, token)
		defer fmt.Printf("%s leads no more\n", name)
		if err := began(term{node, token}); err != nil {
			return err
		}
		return work(ctx, node)
	}, coterie.WithTTL(5*time.Second), coterie.WithOnError(func(err error) {
		fmt.Printf("%s campaigns again: %v\n", name, err)
	}))
}

// follow tells who else leads.
func follow(ctx context.Context, node *coterie.Node) {
	name := node.Status().Name
	for leader, err := range coterie.ObserveElection(ctx, node, prefix) {
		if err == nil && leader.Elected && leader.Value != name {
			fmt.Printf("%s follows %s, which has fencing token %d\n", name, leader.Value, leader.Token)
		}
	}
}

// work does a piece of the job now and then, as long as it leads. A leader that was stopped for
// long, and does not know yet that another leads, does no harm: each write is on the condition that
// it still does.
func work(ctx context.Context, node *coterie.Node) error {
	for tick := time.Tick(100 * time.Millisecond); ; {
		r, err := node.Txn(ctx).If(coterie.GuardFromContext(ctx)).Then(coterie.OpPut(job, time.Now().String())).Commit()
		if err != nil {
			return err
		}
		if !r.Succeeded {
			return coterie.ErrNotOwner // it leads no more, and its context is about to say so
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// errFailed is the error of a job that fails once.
var errFailed = errors.New("the job fails, this once")

// demo makes the job of the first leader of three nodes fail and the next leader stop. It checks that
// another node goes on with the job each time.
func demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cluster, err := coterie.OpenCluster(ctx, 3, coterie.Config{InMemory: true})
	if err != nil {
		return fmt.Errorf("open three nodes: %w", err)
	}
	defer cluster.Close()
	terms := make(chan term, 3)
	fail := make(chan error, 1)
	fail <- errFailed
	began := func(t term) error {
		select {
		case err := <-fail:
			return err
		default:
			terms <- t
			return nil
		}
	}
	stop := map[*coterie.Node]func() error{}
	for _, node := range cluster.Nodes() {
		ctx, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- lead(ctx, node, began) }()
		stop[node] = func() error {
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}
	}

	first, pieces, err := leader(ctx, terms, 0)
	if err != nil {
		return fmt.Errorf("the first leader: %w", err)
	}
	fmt.Printf("%s is stopped\n", first.node.Status().Name)
	if err := errors.Join(stop[first.node](), first.node.Close()); err != nil {
		return fmt.Errorf("stop the first leader: %w", err)
	}
	delete(stop, first.node)
	second, _, err := leader(ctx, terms, pieces)
	if err != nil {
		return fmt.Errorf("the next leader: %w", err)
	}
	if second.token <= first.token {
		return fmt.Errorf("the next leader: its token %d is not above %d", second.token, first.token)
	}
	cancel()
	for node := range stop {
		if err := stop[node](); err != nil {
			return fmt.Errorf("stop the others: %w", err)
		}
	}
	return nil
}

// leader waits for a node to lead and to do a piece of the job, beyond those that were done. How
// many there are is how often the key was written.
func leader(ctx context.Context, terms <-chan term, done int64) (t term, pieces int64, err error) {
	select {
	case t = <-terms:
	case <-ctx.Done():
		return t, 0, context.Cause(ctx)
	}
	for m, err := range coterie.Follow(ctx, t.node, job) {
		if err != nil {
			return t, 0, err
		}
		if pieces = m.KVs[job].Version; pieces > done {
			break
		}
	}
	fmt.Printf("%s has done piece %d of the job\n", t.node.Status().Name, pieces)
	return t, pieces, nil
}
