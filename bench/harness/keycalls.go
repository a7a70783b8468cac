// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"errors"
	"math/rand/v2"
)

var errNoKeys = errors.New("the workload needs keys")

// newGets returns the job that reads the old keys.
func newGets(_ context.Context, b base) (Job, error) {
	if len(b.keys) == 0 {
		return nil, errNoKeys
	}
	c := newCalls(b, func(ctx context.Context, s Store, n int64) error {
		i := b.old(n)
		return s.Get(ctx, b.keys[i], b.values.of(i), b.Local)
	}, nil)
	if b.Local {
		c.untimed = untimedLocalReads
	}
	return c, nil
}

// newPuts returns the job that puts new keys. After a run it reads some of them on all members.
func newPuts(_ context.Context, b base) (Job, error) {
	return newCalls(b, func(ctx context.Context, s Store, n int64) error {
		return s.Put(ctx, keyOf(newPrefix, n), b.values.of(n))
	}, func(ctx context.Context, c *calls) error {
		const sampled = 100
		for range sampled {
			caller := rand.IntN(c.Callers)
			if c.made[caller] == 0 {
				continue
			}
			n := (c.made[caller]-1-rand.Int64N(min(c.made[caller], 10)))*int64(c.Callers) + int64(caller)
			s := c.sys.Stores[rand.IntN(len(c.sys.Stores))]
			err := s.Get(ctx, keyOf(newPrefix, n), c.values.of(n), false)
			if errors.Is(err, errors.ErrUnsupported) {
				err = c.sys.Stores[0].Get(ctx, keyOf(newPrefix, n), c.values.of(n), true)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}), nil
}

// newOverwrites returns the job that puts the old keys again. A put leaves the key as it was, except for its revision.
func newOverwrites(_ context.Context, b base) (Job, error) {
	if len(b.keys) == 0 {
		return nil, errNoKeys
	}
	return newCalls(b, func(ctx context.Context, s Store, n int64) error {
		i := b.old(n)
		return s.Put(ctx, b.keys[i], b.values.of(i))
	}, nil), nil
}
