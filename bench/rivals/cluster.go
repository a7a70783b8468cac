// SPDX-License-Identifier: Apache-2.0

package rivals

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/coterie-kv/coterie/bench/harness"
)

// FreeAddrs returns addresses of the loopback interface whose ports were free a moment ago, for systems that need to know
// the addresses of all members before the first one listens.
func FreeAddrs(n int) ([]string, error) {
	addrs := make([]string, n)
	for i := range addrs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after the loop, so that the ports differ
		addrs[i] = l.Addr().String()
	}
	return addrs, nil
}

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
