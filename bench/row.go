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
	"time"
)

// A row is a workload that runs on two systems.
type row struct {
	name    string
	about   string
	unit    string    // of an operation
	systems [2]string // the second is compared with the first
	goal    float64   // for the ratio of their throughput
	// prepare prepares the workload on a system. The data goes to dir.
	prepare func(ctx context.Context, system, dir string, s scale) (workload, error)
}

// rows returns all rows.
func rows() []row { return slices.Concat(wireRows, watchRows) }

// A workload is ready to run. One goroutine uses it.
type workload interface {
	// run works for about d, checks the results, and returns the measurements.
	run(ctx context.Context, d time.Duration) (sample, error)
	// profile writes profiles of the system under measurement to path.cpu and path.alloc, until stop.
	profile(path string) (stop func() error, err error)
	close() error
}

// A scale is the size of a workload.
type scale struct {
	conns, clients int // connections, and callers that share them
	watchers       int
}

var (
	full = scale{conns: 100, clients: 1000, watchers: 1000}
	tiny = scale{conns: 3, clients: 12, watchers: 12} // for tests
)

// A plan is how rows are run.
type plan struct {
	rounds   int
	round    time.Duration
	scale    scale
	dir      string // of all data; empty for the one for temporary files
	profiles string // the directory of the profiles; empty for none
}

// run runs a row: a warm-up on both systems, and then the rounds in turn.
func (p plan) run(ctx context.Context, r row) (res result, err error) {
	dir, err := os.MkdirTemp(p.dir, "bench")
	if err != nil {
		return res, err
	}
	defer os.RemoveAll(dir)
	var loads [2]workload
	for i, system := range r.systems {
		own := filepath.Join(dir, system)
		if err := os.Mkdir(own, 0o700); err != nil {
			return res, err
		}
		if loads[i], err = r.prepare(ctx, system, own, p.scale); err != nil {
			return res, fmt.Errorf("%s: %w", system, err)
		}
		defer func() { err = errors.Join(err, loads[i].close()) }()
	}
	res = result{Name: r.name, About: r.about, Unit: r.unit, Goal: r.goal}
	for i, system := range r.systems {
		res.Systems[i].Name = system
		if _, err := loads[i].run(ctx, p.round/2); err != nil {
			return res, fmt.Errorf("%s: warm-up: %w", system, err)
		}
	}
	for range p.rounds {
		for i, system := range r.systems {
			s, err := p.measure(ctx, r, system, loads[i])
			if err != nil {
				return res, fmt.Errorf("%s: %w", system, err)
			}
			res.Systems[i].Rounds = append(res.Systems[i].Rounds, s)
		}
	}
	return res, nil
}

// measure runs one round of a system. The profile of a later round replaces that of an earlier one.
func (p plan) measure(ctx context.Context, r row, system string, load workload) (s sample, err error) {
	if p.profiles != "" {
		name := strings.ReplaceAll(r.name, "/", "-") + "-" + system
		stop, err := load.profile(filepath.Join(p.profiles, name))
		if err != nil {
			return s, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	return load.run(ctx, p.round)
}
