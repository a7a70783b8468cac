// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// leaseTTL is long enough that no lease ends by itself.
const leaseTTL = time.Hour

// newKeepAlives returns the job that renews leases in turn.
func newKeepAlives(ctx context.Context, b base) (Job, error) {
	l, err := as[Leaser](b.sys.Stores[0])
	if err != nil {
		return nil, err
	}
	ids := make([]int64, b.Leases)
	err = fillers.repeat(func(next func() int) error {
		for {
			i := next()
			if i >= len(ids) {
				return nil
			}
			id, err := l.Grant(ctx, leaseTTL)
			if err != nil {
				return err
			}
			ids[i] = id
		}
	})
	if err != nil {
		return nil, err
	}
	return newCalls(b, func(ctx context.Context, s Store, n int64) error {
		l, err := as[Leaser](s)
		if err != nil {
			return err
		}
		return l.KeepAlive(ctx, ids[n%int64(len(ids))])
	}, nil), nil
}

// newGrants returns the job that grants leases.
func newGrants(_ context.Context, b base) (Job, error) {
	return newCalls(b, func(ctx context.Context, s Store, _ int64) error {
		l, err := as[Leaser](s)
		if err != nil {
			return err
		}
		_, err = l.Grant(ctx, leaseTTL)
		return err
	}, nil), nil
}

// newLocks returns the job in which each caller locks and unlocks a lock of its own.
func newLocks(ctx context.Context, b base) (Job, error) {
	var locks []Lock
	end := func() error {
		var errs []error
		for _, l := range locks {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	}
	stores := b.place()
	for i := range b.Callers {
		l, err := as[Locker](stores[i%len(stores)])
		if err != nil {
			return nil, errors.Join(err, end())
		}
		lock, err := l.NewLock(ctx, fmt.Sprintf("lock%d", i))
		if err != nil {
			return nil, errors.Join(err, end())
		}
		locks = append(locks, lock)
	}
	c := newCalls(b, func(ctx context.Context, _ Store, n int64) error {
		l := locks[n%int64(len(locks))]
		if err := l.Lock(ctx); err != nil {
			return err
		}
		return l.Unlock(ctx)
	}, nil)
	c.close = end
	return c, nil
}
