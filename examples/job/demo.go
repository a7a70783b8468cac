// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/mirror"
)

// demo cuts the leader of three nodes off, and kills the next leader.
func demo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	var founders []coterie.Founder
	for _, name := range []string{"node1", "node2", "node3"} {
		founders = append(founders, coterie.Founder{Name: name, Addr: name + ":7400"})
	}
	network, links, terms := coterie.NewMemoryNetwork(), map[string]*link{}, make(chan *term, len(founders))
	var nodes []*coterie.Node
	var runs sync.WaitGroup
	defer runs.Wait()
	defer fail(nil)
	for _, p := range founders {
		links[p.Name] = &link{Network: network}
		node, err := coterie.Open(ctx, coterie.Config{Name: p.Name, Addr: p.Addr, Founders: founders, InMemory: true,
			Network: links[p.Name], ElectionTimeout: 300 * time.Millisecond})
		if err != nil {
			return fmt.Errorf("open %s: %w", p.Name, err)
		}
		defer node.Close()
		nodes = append(nodes, node)
		runs.Go(func() {
			if err := run(ctx, node, 2*time.Second, func(t *term) { terms <- t }); !errors.Is(err, coterie.ErrClosed) {
				fail(err)
			}
		})
	}

	first, r, err := next(ctx, nodes, terms, &term{}, report{})
	if err != nil {
		return fmt.Errorf("the first leader: %w", err)
	}
	fmt.Printf("%s is cut off while it is about to write a result\n", first.name)
	links[first.name].cut(true)
	late := make(chan error, 1)
	go func() {
		// A program that ignores its context, or was stopped and has not noticed, would write like this.
		written, err := first.publish(ctx, first.after(report{}))
		if written {
			err = errors.New("a leader that was cut off has overwritten the result")
		}
		late <- err
	}()
	second, r, err := next(ctx, nodes, terms, first, r)
	if err != nil {
		return fmt.Errorf("the second leader: %w", err)
	}
	fmt.Printf("%s is back\n", first.name)
	links[first.name].cut(false)
	if err := <-late; err != nil {
		return err
	}
	fmt.Printf("the result of %s was refused\n", first.name)

	fmt.Printf("%s is killed\n", second.name)
	if err := second.node.Close(); err != nil { // this gives nothing up: its lease must end
		return fmt.Errorf("kill the second leader: %w", err)
	}
	if _, r, err = next(ctx, nodes, terms, second, r); err != nil {
		return fmt.Errorf("the third leader: %w", err)
	}
	fmt.Printf("%d pieces are done, each counted once: the sum is %d\n", r.Pieces, r.Total)
	return nil
}

// next waits for the leader after last, and until a node that was neither has the result of three more pieces of the
// job.
func next(ctx context.Context, nodes []*coterie.Node, terms <-chan *term, last *term, done report,
) (*term, report, error) {
	var t *term
	select {
	case t = <-terms:
	case <-ctx.Done():
		return nil, done, context.Cause(ctx)
	}
	if t.token <= last.token || t.node == last.node {
		return nil, done, fmt.Errorf("%s leads with token %d, after %s with %d", t.name, t.token, last.name, last.token)
	}
	for _, node := range nodes {
		if node == t.node || node == last.node {
			continue
		}
		index, err := mirror.New(ctx, node, result, mirror.JSON[report])
		if err != nil {
			return nil, done, err
		}
		defer index.Close()
		for s, err := range index.Follow(ctx) {
			if err != nil {
				return nil, done, err
			}
			if r, _ := s.Get(result); r.Token == t.token && r.Pieces >= done.Pieces+3 {
				return t, r, nil
			}
		}
	}
	return nil, done, errors.New("nobody follows")
}
