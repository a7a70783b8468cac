// SPDX-License-Identifier: Apache-2.0

package rivals

import (
	"context"
	"errors"
	"time"

	"github.com/coterie-kv/coterie/bench/harness"
)

// Retry calls a function until it succeeds or ctx ends. Each attempt has a timeout of a second, because a member that knows
// no leader may not answer at all.
func Retry(ctx context.Context, f func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		err := f(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// LeaderFirst returns members as stores, in an order that begins with the leader.
func LeaderFirst[T harness.Store](members []T, leader int) (stores []harness.Store) {
	for i := range members {
		stores = append(stores, members[(leader+i)%len(members)])
	}
	return stores
}
