// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/coterie-kv/coterie/bench/harness"
	"github.com/coterie-kv/coterie/bench/recording"
)

// A curve is a workload that runs at several sizes of one parameter.
type curve struct {
	name       string
	about      string
	axis       string // the parameter
	sizes      []int
	on         []contender
	etcdUpTo   int // the largest size on etcd, where larger ones fail or take long; 0 for no bound
	load       harness.Load
	resize     func(size int, c *contender, l *harness.Load)
	quantities []quantity    // that the plots show
	round      time.Duration // of a run, where the plan's is too short; 0 for that
}

// pointTimeout is how long all systems together may take at one size. Then their processes are killed.
const pointTimeout = 4 * time.Minute

// grow runs the curves with matching names, prints their points, and writes them to a file unless its name is empty. It
// writes the file after each curve, so that an interruption loses at most one.
func (p plan) grow(ctx context.Context, matches *regexp.Regexp, file string, out io.Writer) error {
	g := recording.Growth{Machine: recording.ThisMachine(p.dir)}
	var errs []error
	for _, c := range curves {
		if !matches.MatchString(c.name) {
			continue
		}
		began := time.Now()
		outcome, err := p.growOne(ctx, c, out)
		fmt.Fprintf(out, "  took %v\n", time.Since(began).Round(time.Second))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
		g.Curves = append(g.Curves, outcome)
		if file != "" {
			if err := recording.Write(file, g); err != nil {
				return errors.Join(append(errs, err)...)
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// growOne runs a curve. A system that fails runs at no larger size.
func (p plan) growOne(ctx context.Context, c curve, out io.Writer) (recording.Curve, error) {
	outcome := recording.Curve{Name: c.name, About: c.about, Axis: c.axis}
	for _, q := range c.quantities {
		outcome.Quantities = append(outcome.Quantities, q.label())
	}
	for _, on := range c.on {
		outcome.Series = append(outcome.Series, recording.Series{System: on.label})
	}
	errs := make([]error, len(c.on))
	fmt.Fprintf(out, "\n%s: %s\n", c.name, c.about)
	for _, size := range c.sizes {
		r := row{load: c.load}
		var running []int // the indexes of the systems of this size
		for i, on := range c.on {
			if errs[i] == nil && !(on.setup.System == "etcd" && c.etcdUpTo > 0 && size > c.etcdUpTo) {
				c.resize(size, &on, &r.load)
				running, r.on = append(running, i), append(r.on, on)
			}
		}
		samples, failed := p.growAll(ctx, r, cmp.Or(c.round, p.round))
		for at, i := range running {
			if failed[at] != nil {
				errs[i] = fmt.Errorf("%s: %s %d: %w", c.on[i].label, c.axis, size, failed[at])
				fmt.Fprintf(out, "  %v\n", errs[i])
				continue
			}
			point := recording.Point{Size: size, Values: map[string]float64{}, Sample: samples[at]}
			fmt.Fprintf(out, "  %-8s %s %d:", c.on[i].label, c.axis, size)
			for _, q := range c.quantities {
				point.Values[q.label()] = q.scaled(samples[at])
				fmt.Fprintf(out, " %s %.4g", q.label(), q.scaled(samples[at]))
			}
			fmt.Fprintln(out)
			outcome.Series[i].Points = append(outcome.Series[i].Points, point)
		}
	}
	return outcome, errors.Join(errs...)
}

// growAll runs a row once on each of its contenders, in turn: a warm-up, and a run of d.
func (p plan) growAll(ctx context.Context, r row, d time.Duration) ([]harness.Sample, []error) {
	ctx, cancel := context.WithTimeout(ctx, pointTimeout)
	defer cancel()
	dir, err := os.MkdirTemp(p.dir, "bench")
	if err != nil {
		return nil, slices.Repeat([]error{err}, len(r.on))
	}
	defer os.RemoveAll(dir)
	samples := make([]harness.Sample, len(r.on))
	r = r.at(p.scale)
	sessions, errs := p.prepareAll(ctx, r, dir)
	for i, s := range sessions {
		if s == nil {
			continue
		}
		if _, errs[i] = s.run(ctx, d/3); errs[i] == nil {
			samples[i], errs[i] = s.run(ctx, d)
		}
		errs[i] = errors.Join(errs[i], s.close())
	}
	return samples, errs
}

// label returns the name of the quantity with its unit, as plots show it.
func (q quantity) label() string {
	if q.duration {
		return q.name + " [µs]"
	}
	return q.name
}

// scaled returns the quantity of a sample, with durations in microseconds.
func (q quantity) scaled(s harness.Sample) float64 {
	v := q.of(s)
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0 // JSON has neither
	}
	if q.duration {
		return v / 1e3
	}
	return v
}
