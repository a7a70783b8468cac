// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"time"
)

// The parts of the workload that fills the store.
const fillParts = 7

// newFilling returns the job that puts Ops new keys in each of seven parts, and compares the last part with the first.
func newFilling(ctx context.Context, b base) (Job, error) {
	puts, err := newPuts(ctx, b)
	return &filling{puts}, err
}

type filling struct{ Job }

func (f *filling) Run(ctx context.Context, d time.Duration, m Meter) (Sample, error) {
	var first, last Sample
	for part := range fillParts {
		s, err := f.Job.Run(ctx, d, m)
		if err != nil {
			return s, err
		}
		if last = s; part == 0 {
			first = s
		}
	}
	last.Figures = compared(first, last)
	return last, nil
}

// A growing job puts the old keys again, adds keys, and puts all of them again. It runs once.
type growing struct{ base }

// newGrowing returns the job that compares puts among many keys, Keys and Added, with puts among Keys.
func newGrowing(_ context.Context, b base) (Job, error) { return &growing{b}, nil }

func (g *growing) Run(ctx context.Context, d time.Duration, m Meter) (Sample, error) {
	var samples [2]Sample
	for i := range samples {
		puts, err := newOverwrites(ctx, g.base)
		if err != nil {
			return Sample{}, err
		}
		if _, err := puts.Run(ctx, d/4, m); err != nil { // a warm-up
			return Sample{}, err
		}
		if samples[i], err = puts.Run(ctx, d, m); err != nil {
			return Sample{}, err
		}
		if i == 0 {
			if err := g.fill(ctx, len(g.keys), len(g.keys)+g.Added); err != nil {
				return Sample{}, err
			}
		}
	}
	s := samples[1]
	s.Figures = compared(samples[0], s)
	return s, nil
}

func (g *growing) Close() error { return nil }
