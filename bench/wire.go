// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// wireRows are the commands with which users of etcd measure it, and the same commands beside gRPC alone.
var wireRows = []row{
	{
		name: "wire/put/leader", about: "puts of new keys to the leader", unit: "puts",
		systems: [2]string{"etcd", "coterie"}, goal: 2, prepare: over(leaderOnly, putNew),
	},
	{
		name: "wire/put/all", about: "puts of new keys to all members", unit: "puts",
		systems: [2]string{"etcd", "coterie"}, goal: 2, prepare: over(allMembers, putNew),
	},
	{
		name: "wire/range/linearizable", about: "linearizable ranges of one key, of all members", unit: "ranges",
		systems: [2]string{"etcd", "coterie"}, goal: 1.3, prepare: over(allMembers, rangeOne()),
	},
	{
		name: "wire/range/serializable", about: "serializable ranges of one key, of all members", unit: "ranges",
		systems: [2]string{"etcd", "coterie"}, goal: 1.2, prepare: over(allMembers, rangeOne(clientv3.WithSerializable())),
	},
	{
		name: "wire/bound/serializable", about: "serializable ranges beside a server of gRPC that returns a constant", unit: "ranges",
		systems: [2]string{"bare", "coterie"}, goal: 0.8, prepare: over(allMembers, rangeOne(clientv3.WithSerializable())),
	},
}

// The selections of members that clients connect to.
func leaderOnly(addrs []string) []string { return addrs[:1] }
func allMembers(addrs []string) []string { return addrs }

// theKey is the key that all ranges read.
const theKey = "the key!"

// valueOf returns the value of a key: 256 bytes that depend on it.
func valueOf(key string) string { return strings.Repeat(key, 256/8) }

// An operation is a call that callers repeat.
type operation struct {
	// call makes the call with number n, counted from 1 over all callers.
	call func(ctx context.Context, c *clientv3.Client, n int64) error
	// check checks the outcome of the calls with the numbers from first to last, after a round. It may be nil.
	check func(ctx context.Context, clients []*clientv3.Client, first, last int64) error
}

// putNew puts new keys. After a round it reads some of them on all members.
var putNew = operation{
	call: func(ctx context.Context, c *clientv3.Client, n int64) error {
		_, err := c.Put(ctx, numbered(n), valueOf(numbered(n)))
		return err
	},
	check: func(ctx context.Context, clients []*clientv3.Client, first, last int64) error {
		const sampled = 100
		for i := range min(sampled, last-first+1) {
			n := first + i*(last-first)/sampled
			if i == 0 {
				n = last
			}
			if err := checkOne(ctx, clients[int(i)%len(clients)], numbered(n)); err != nil {
				return err
			}
		}
		return nil
	},
}

// rangeOne reads theKey.
func rangeOne(opts ...clientv3.OpOption) operation {
	return operation{call: func(ctx context.Context, c *clientv3.Client, _ int64) error {
		return checkOne(ctx, c, theKey, opts...)
	}}
}

func numbered(n int64) string { return fmt.Sprintf("%08d", n) }

// checkOne reads a key, which was put once.
func checkOne(ctx context.Context, c *clientv3.Client, key string, opts ...clientv3.OpOption) error {
	r, err := c.Get(ctx, key, opts...)
	if err == nil && (r.Count != 1 || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != valueOf(key) || r.Kvs[0].Version != 1) {
		err = fmt.Errorf("a range of %q returned %v", key, r)
	}
	return err
}

// A wire is a server process with clients, and the operation that they repeat. One goroutine uses it.
type wire struct {
	*server
	clients []*clientv3.Client // one for each connection
	callers int
	operation
	made atomic.Int64 // calls that were begun
}

// over returns the prepare function of a row whose clients repeat an operation over gRPC.
func over(selection func([]string) []string, o operation) func(context.Context, string, string, scale) (workload, error) {
	return func(ctx context.Context, system, dir string, s scale) (workload, error) {
		w, err := openWire(ctx, system, dir, s, selection)
		if err != nil {
			return nil, err
		}
		w.operation = o
		return w, nil
	}
}

// openWire starts a server process, connects the clients, and puts theKey.
func openWire(ctx context.Context, system, dir string, s scale, selection func([]string) []string) (*wire, error) {
	server, err := startServer(ctx, system, dir)
	if err != nil {
		return nil, err
	}
	w := &wire{server: server, callers: s.clients}
	addrs := selection(server.addrs)
	for i := range s.conns {
		c, err := clientv3.New(clientv3.Config{
			Endpoints: []string{addrs[i%len(addrs)]}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
		})
		if err != nil {
			return nil, errors.Join(err, w.close())
		}
		w.clients = append(w.clients, c)
	}
	if _, err := w.clients[0].Put(ctx, theKey, valueOf(theKey)); err != nil {
		return nil, errors.Join(err, w.close())
	}
	// A serializable range sees the key when its member has applied it.
	for _, c := range w.clients {
		if _, err := c.Get(ctx, theKey); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	return w, nil
}

func (w *wire) close() error {
	var errs []error
	for _, c := range w.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, w.server.close())...)
}

func (w *wire) run(ctx context.Context, d time.Duration) (sample, error) {
	first := w.made.Load()
	s, err := w.measure(func() ([]time.Duration, error) { return w.callAll(ctx, d) })
	if err == nil && w.check != nil {
		err = w.check(ctx, w.clients, first+1, w.made.Load())
	}
	return s, err
}

// measure measures the server and the clients while f runs, which returns the durations of the operations.
func (w *wire) measure(f func() ([]time.Duration, error)) (s sample, err error) {
	before, err := w.ask(question{})
	if err != nil {
		return s, err
	}
	cpu, _ := cpuTime()
	start := time.Now()
	durations, err := f()
	s.Elapsed = time.Since(start)
	end, _ := cpuTime()
	if err != nil {
		return s, err
	}
	after, err := w.ask(question{})
	if err != nil {
		return s, err
	}
	s.Server, s.ClientCPU = after.since(before), end-cpu
	s.Ops, s.Latency = len(durations), summarize(durations)
	s.Throughput = float64(s.Ops) / s.Elapsed.Seconds()
	return s, nil
}

// callAll makes calls for d, all callers at once, and returns their durations.
func (w *wire) callAll(ctx context.Context, d time.Duration) ([]time.Duration, error) {
	until := time.Now().Add(d)
	durations := make([][]time.Duration, w.callers)
	errs := make([]error, w.callers)
	var callers sync.WaitGroup
	for i := range w.callers {
		c := w.clients[i%len(w.clients)]
		callers.Go(func() {
			for now := time.Now(); now.Before(until) && errs[i] == nil; {
				errs[i] = w.call(ctx, c, w.made.Add(1))
				end := time.Now()
				durations[i] = append(durations[i], end.Sub(now))
				now = end
			}
		})
	}
	callers.Wait()
	var all []time.Duration
	for _, own := range durations {
		all = append(all, own...)
	}
	return all, errors.Join(errs...)
}
