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
	locks, err := openLocks(ctx, &b, b.Callers, leaseTTL)
	if err != nil {
		return nil, err
	}
	c := newCalls(b, func(ctx context.Context, _ Store, n int64) error {
		l := locks[n%int64(len(locks))]
		if err := l.Lock(ctx); err != nil {
			return err
		}
		return l.Unlock(ctx)
	}, nil)
	c.close = func() error { return closeLocks(locks) }
	return c, nil
}

// openLocks returns locks, each with a session of its own, that are spread over the members of the load's place.
func openLocks(ctx context.Context, b *base, n int, ttl time.Duration) ([]Lock, error) {
	locks := make([]Lock, n)
	stores := b.place()
	err := fillers.repeat(func(next func() int) error {
		for {
			i := next()
			if i >= n {
				return nil
			}
			l, err := as[Locker](stores[i%len(stores)])
			if err != nil {
				return err
			}
			if locks[i], err = l.NewLock(ctx, fmt.Sprintf("lock%d", i), ttl); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return nil, errors.Join(err, closeLocks(locks))
	}
	return locks, nil
}

// closeLocks closes locks. Some may be nil.
func closeLocks(locks []Lock) error {
	return fillers.repeat(func(next func() int) error {
		for {
			i := next()
			if i >= len(locks) {
				return nil
			}
			if locks[i] == nil {
				continue
			}
			if err := locks[i].Close(); err != nil {
				return err
			}
		}
	})
}
