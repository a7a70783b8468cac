// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coterie-kv/coterie/bench/harness"
)

// A row is a workload that runs on one or two contenders. In about and in the labels of contenders, {keys}, {added},
// {ops} and {standbys} stand for the sizes of the load and of the setup: see at.
type row struct {
	name    string
	about   string
	unit    string // of an operation
	on      []contender
	load    harness.Load
	conns   int     // the callers are in this process and have so many connections; 0 for callers in that of the system
	once    bool    // a run changes the system, or takes as long as it takes: there is no warm-up, and one round
	verdict []judge // at least one
}

// rows returns all rows.
func rows() []row {
	return slices.Concat(wireRows, callRows, watchRows, faultRows, sizeRows, rivalRows())
}

// with returns the row with a changed setup of all contenders.
func (r row) with(change func(*harness.Setup)) row {
	r.on = slices.Clone(r.on)
	for i := range r.on {
		r.on[i] = r.on[i].with(change)
	}
	return r
}

// A scale bounds the size of workloads.
type scale struct{ conns, callers, keys, watchers, leases, ops, batch, standbys int }

const unbounded = 1 << 60

var (
	full  = scale{unbounded, unbounded, unbounded, unbounded, unbounded, unbounded, unbounded, unbounded}
	quick = scale{unbounded, unbounded, 200_000, unbounded, unbounded, 50_000, unbounded, 12}
	tiny  = scale{conns: 3, callers: 12, keys: 300, watchers: 12, leases: 20, ops: 100, batch: 20, standbys: 1} // for tests
)

// of returns a load with the bounds of the scale.
func (s scale) of(l harness.Load) harness.Load {
	l.Callers, l.Keys, l.Added = min(l.Callers, s.callers), min(l.Keys, s.keys), min(l.Added, s.keys)
	l.Watchers, l.Leases = min(l.Watchers, s.watchers), min(l.Leases, s.leases)
	l.Ops, l.Batch = min(l.Ops, s.ops), min(l.Batch, s.batch)
	return l
}

// at returns the row with the bounds of a scale, and with its sizes in the texts.
func (r row) at(s scale) row {
	r.load, r.conns = s.of(r.load), min(r.conns, s.conns)
	standbys := 0
	r = r.with(func(setup *harness.Setup) {
		setup.Standbys = min(setup.Standbys, s.standbys)
		standbys = max(standbys, setup.Standbys)
	})
	texts := strings.NewReplacer(
		"{keys}", count(r.load.Keys), "{added}", count(r.load.Added), "{ops}", count(r.load.Ops), "{standbys}", count(standbys))
	r.about = texts.Replace(r.about)
	for i := range r.on {
		r.on[i].label = texts.Replace(r.on[i].label)
	}
	return r
}

// count returns a number as text: 1000, 300,000 or 1 M.
func count(n int) string {
	switch {
	case n >= 1e6 && n%1e6 == 0:
		return fmt.Sprintf("%d M", n/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%d,%03d", n/1000, n%1000)
	}
	return fmt.Sprint(n)
}

// A plan is how rows are run.
type plan struct {
	rounds   int
	round    time.Duration
	scale    scale
	dir      string // of all data; empty for the one for temporary files
	bin      string // of the programs of rivals
	profiles string // the directory of the profiles; empty for none
}

// run runs a row: a warm-up on all contenders, and then the rounds in turn.
func (p plan) run(ctx context.Context, r row) (res result, err error) {
	dir, err := os.MkdirTemp(p.dir, "bench")
	if err != nil {
		return res, err
	}
	defer os.RemoveAll(dir)
	r = r.at(p.scale)
	res = result{Name: r.name, About: r.about, Unit: r.unit, judges: r.verdict}
	sessions, errs := p.prepareAll(ctx, r, dir)
	defer func() { err = errors.Join(err, closeAll(sessions)) }()
	if err := errors.Join(errs...); err != nil {
		return res, err
	}
	for i, c := range r.on {
		res.Systems = append(res.Systems, systemResult{Name: c.label, Durability: sessions[i].durability()})
	}
	rounds := p.rounds
	if r.once {
		rounds = 1
	} else {
		for i, c := range r.on {
			if _, err := sessions[i].run(ctx, p.round/2); err != nil {
				return res, fmt.Errorf("%s: warm-up: %w", c.label, err)
			}
		}
	}
	for range rounds {
		for i, c := range r.on {
			s, err := p.measure(ctx, r, c, sessions[i])
			if err != nil {
				return res, fmt.Errorf("%s: %w", c.label, err)
			}
			res.Systems[i].Rounds = append(res.Systems[i].Rounds, s)
		}
	}
	return res, nil
}

// prepareAll starts the processes of all contenders at the same time. The session of a contender with an error is nil.
func (p plan) prepareAll(ctx context.Context, r row, dir string) ([]session, []error) {
	sessions, errs := make([]session, len(r.on)), make([]error, len(r.on))
	var preparing sync.WaitGroup
	for i, c := range r.on {
		preparing.Go(func() {
			if sessions[i], errs[i] = p.prepare(ctx, r, c, dir); errs[i] != nil {
				sessions[i], errs[i] = nil, fmt.Errorf("%s: %w", c.label, errs[i])
			}
		})
	}
	preparing.Wait()
	return sessions, errs
}

// closeAll closes sessions at the same time.
func closeAll(sessions []session) error {
	errs := make([]error, len(sessions))
	var closing sync.WaitGroup
	for i, s := range sessions {
		if s != nil {
			closing.Go(func() { errs[i] = s.close() })
		}
	}
	closing.Wait()
	return errors.Join(errs...)
}

// prepare starts the process of a contender, and prepares the workload.
func (p plan) prepare(ctx context.Context, r row, c contender, dir string) (session, error) {
	process, err := c.start(ctx, dir, p.bin)
	if err != nil {
		return nil, err
	}
	if r.conns > 0 {
		return newRemote(ctx, process, r.load, r.conns)
	}
	return newLocal(process, r.load)
}

// measure runs one round. The profile of a later round replaces that of an earlier one.
func (p plan) measure(ctx context.Context, r row, c contender, s session) (sample harness.Sample, err error) {
	if p.profiles != "" {
		name := strings.NewReplacer("/", "-", " ", "-").Replace(r.name + "-" + c.label)
		stop, err := s.profile(filepath.Join(p.profiles, name))
		if err != nil {
			return sample, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	return s.run(ctx, p.round)
}
