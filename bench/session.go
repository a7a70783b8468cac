// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/coterie-kv/coterie/bench/harness"
)

// A session is a workload on a contender, ready to run. One goroutine uses it.
type session interface {
	// run works for about d, checks the results, and returns the measurements.
	run(ctx context.Context, d time.Duration) (harness.Sample, error)
	// profile writes profiles of the process of the system to path.cpu and path.alloc, until stop.
	profile(path string) (stop func() error, err error)
	durability() string
	close() error
}

// A local session has its callers in the process of the system.
type local struct{ *harness.Process }

func newLocal(p *harness.Process, l harness.Load) (session, error) {
	if err := p.Prepare(l); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return local{p}, nil
}

func (l local) run(_ context.Context, d time.Duration) (harness.Sample, error) { return l.Run(d) }

func (l local) profile(path string) (func() error, error) { return l.Profile(path) }

func (l local) durability() string { return l.Durability }

func (l local) close() error { return l.Close() }

// A remote session has its callers in this process. They call the endpoints of the system with the client of etcd.
type remote struct {
	*harness.Process
	clients []*clientv3.Client // one for each connection
	job     harness.Job
}

// newRemote makes conns connections to the members of the load's place, and prepares the load on them.
func newRemote(ctx context.Context, p *harness.Process, l harness.Load, conns int) (_ session, err error) {
	r := &remote{Process: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	addrs := p.Addrs
	if l.Place != harness.OnAll {
		addrs = addrs[:1]
	}
	sys := &harness.System{Durability: p.Durability}
	for i := range conns {
		c, err := clientv3.New(clientv3.Config{
			Endpoints: []string{addrs[i%len(addrs)]}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
		})
		if err != nil {
			return nil, err
		}
		r.clients = append(r.clients, c)
		sys.Stores = append(sys.Stores, etcdStore{c})
	}
	l.Place = harness.OnAll // of the connections
	if r.job, err = harness.Prepare(ctx, sys, l); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *remote) run(ctx context.Context, d time.Duration) (harness.Sample, error) {
	return r.job.Run(ctx, d, r.Meter())
}

func (r *remote) profile(path string) (func() error, error) { return r.Profile(path) }

func (r *remote) durability() string { return r.Durability }

func (r *remote) close() error {
	var errs []error
	if r.job != nil {
		errs = append(errs, r.job.Close())
	}
	for _, c := range r.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, r.Process.Close())...)
}
