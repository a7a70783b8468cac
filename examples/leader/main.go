// SPDX-License-Identifier: Apache-2.0

// Leader runs a job in one instance at a time. If the leading instance stops or crashes, another one
// continues the job.
//
// Without flags, three nodes in one process demonstrate and check this. To run three processes on one
// machine, use a terminal for each:
//
//	go run ./examples/leader -name a -addr 127.0.0.1:7411 -dir /tmp/leader/a \
//		-founders a=127.0.0.1:7411,b=127.0.0.1:7412,c=127.0.0.1:7413
//	go run ./examples/leader -name b -addr 127.0.0.1:7412 -dir /tmp/leader/b \
//		-founders a=127.0.0.1:7411,b=127.0.0.1:7412,c=127.0.0.1:7413
//	go run ./examples/leader -name c -addr 127.0.0.1:7413 -dir /tmp/leader/c \
//		-founders a=127.0.0.1:7411,b=127.0.0.1:7412,c=127.0.0.1:7413
//
// Each process prints when it begins and stops leading, and which leader it follows. Stop the leader, or
// kill it: another one leads, with a higher token. Start it again: it follows. If the job fails, another
// instance leads, and the one that failed is a candidate again after a pause.
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
	prefix = "leader" // of the candidates' keys
	job    = "job"    // the key that the job writes
)

func main() { process.Main(demo, serve) }

// serve runs one of three nodes. When ctx ends, it first stops leading, and then closes the node.
func serve(ctx context.Context, cfg coterie.Config) error {
	node, err := coterie.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer node.Close()
	fmt.Printf("%s waits for the other nodes: all %d at the first start, a majority later\n", cfg.Name, len(cfg.Founders))
	return lead(ctx, node, func(term) error { return nil })
}

// A term is the time in which one node leads.
type term struct {
	node  *coterie.Node
	token int64
}

// lead does the job whenever this node leads, until ctx ends. After an error of the job this node resigns
// and, after a pause, campaigns again; coterie.ErrStopCampaign would end its campaign.
func lead(ctx context.Context, node *coterie.Node, began func(term) error) error {
	name := node.Status().Name
	go follow(ctx, node)
	return coterie.RunAsLeader(ctx, node, prefix, name, func(ctx context.Context, token int64) error {
		fmt.Printf("%s leads, with fencing token %d\n", name, token)
		defer fmt.Printf("%s no longer leads\n", name)
		if err := began(term{node, token}); err != nil {
			return err
		}
		return work(ctx, node)
	}, coterie.WithTTL(5*time.Second), coterie.WithOnError(func(err error) {
		fmt.Printf("%s campaigns again: %v\n", name, err)
	}))
}

// follow prints each other node that leads.
func follow(ctx context.Context, node *coterie.Node) {
	name := node.Status().Name
	for leader, err := range coterie.ObserveElection(ctx, node, prefix) {
		if err == nil && leader.Elected && leader.Value != name {
			fmt.Printf("%s follows %s, which has fencing token %d\n", name, leader.Value, leader.Token)
		}
	}
}

// work does a piece of the job ten times a second, as long as it leads. A leader that was suspended, and
// does not know yet that another one leads, does no harm: the guard is a condition of each write.
func work(ctx context.Context, node *coterie.Node) error {
	for tick := time.Tick(100 * time.Millisecond); ; {
		r, err := node.Txn(ctx).If(coterie.GuardFromContext(ctx)).Then(coterie.OpPut(job, time.Now().String())).Commit()
		if err != nil {
			return err
		}
		if !r.Succeeded {
			return coterie.ErrNotOwner // another node leads, and the context is about to end
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// errFailed is the error of a job that fails once.
var errFailed = errors.New("the job fails, only once")

// demo makes the job of the first leader of three nodes fail, and stops the next leader. It checks that
// another node continues the job each time.
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

// leader waits until a node leads and has done more than done pieces of the job. The version of the key
// is the number of pieces.
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
