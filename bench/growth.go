// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"time"

	"github.com/coterie-kv/coterie/bench/harness"
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
	quantities []quantity // that the plots show
	round      time.Duration
}

// growthRound is the time of a run of most curves. All curves together take about ten minutes.
const growthRound = 1500 * time.Millisecond

// A growth is the outcome of a curve.
type growth struct {
	Name       string         `json:"name"`
	About      string         `json:"about"`
	Axis       string         `json:"axis"`
	Quantities []string       `json:"quantities"`
	Series     []growthSeries `json:"series"`
}

// A growthSeries is the outcome of a curve on one system.
type growthSeries struct {
	System string        `json:"system"`
	Points []growthPoint `json:"points"`
}

// A growthPoint is the outcome at one size.
type growthPoint struct {
	Size   int                `json:"size"`
	Values map[string]float64 `json:"values"` // by the names of the quantities; durations are in microseconds
	Sample harness.Sample     `json:"sample"`
}

// grow runs the curves whose names match, prints their points, and writes them to a file unless its name is empty.
func (p plan) grow(ctx context.Context, matches *regexp.Regexp, file string, out io.Writer) error {
	var all []growth
	var errs []error
	for _, c := range curves {
		if !matches.MatchString(c.name) {
			continue
		}
		g, err := p.growOne(ctx, c, out)
		all = append(all, g)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	if file != "" {
		errs = append(errs, writeJSON(file, struct {
			machine
			Curves []growth `json:"curves"`
		}{thisMachine(), all}))
	}
	return errors.Join(errs...)
}

// growOne runs a curve. The systems take turns at each size. A system that fails runs at no larger size.
func (p plan) growOne(ctx context.Context, c curve, out io.Writer) (growth, error) {
	g := growth{Name: c.name, About: c.about, Axis: c.axis}
	for _, q := range c.quantities {
		g.Quantities = append(g.Quantities, q.label())
	}
	for _, on := range c.on {
		g.Series = append(g.Series, growthSeries{System: on.label})
	}
	errs := make([]error, len(c.on))
	fmt.Fprintf(out, "\n%s: %s\n", c.name, c.about)
	for _, size := range c.sizes {
		for i, on := range c.on {
			if errs[i] != nil || on.setup.System == "etcd" && c.etcdUpTo > 0 && size > c.etcdUpTo {
				continue
			}
			s, err := p.growPoint(ctx, c, on, size)
			if err != nil {
				errs[i] = fmt.Errorf("%s: %s %d: %w", on.label, c.axis, size, err)
				fmt.Fprintf(out, "  %v\n", errs[i])
				continue
			}
			point := growthPoint{Size: size, Values: map[string]float64{}, Sample: s}
			fmt.Fprintf(out, "  %-8s %s %d:", on.label, c.axis, size)
			for _, q := range c.quantities {
				point.Values[q.label()] = q.scaled(s)
				fmt.Fprintf(out, " %s %.4g", q.label(), q.scaled(s))
			}
			fmt.Fprintln(out)
			g.Series[i].Points = append(g.Series[i].Points, point)
		}
	}
	return g, errors.Join(errs...)
}

// growPoint runs a curve at one size: a warm-up, and a run.
func (p plan) growPoint(ctx context.Context, c curve, on contender, size int) (s harness.Sample, err error) {
	r := row{load: c.load}
	c.resize(size, &on, &r.load)
	dir, err := os.MkdirTemp(p.dir, "bench")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	ready, err := p.prepare(ctx, r, on, dir)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, ready.close()) }()
	d := p.round
	if c.round > 0 {
		d = min(d*2, c.round)
	}
	if _, err := ready.run(ctx, d/3); err != nil {
		return s, err
	}
	return ready.run(ctx, d)
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
