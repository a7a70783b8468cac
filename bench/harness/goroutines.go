// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"errors"
	"sync"
	"sync/atomic"
)

// goroutines is a number of goroutines that work at the same time.
type goroutines int

// each calls f once in each goroutine, with its index, and returns when all calls have returned.
func (n goroutines) each(f func(i int) error) error {
	errs := make([]error, n)
	var working sync.WaitGroup
	for i := range int(n) {
		working.Go(func() { errs[i] = f(i) })
	}
	working.Wait()
	return errors.Join(errs...)
}

// repeat calls f in each goroutine. The function next, which they share, counts from 0.
func (n goroutines) repeat(f func(next func() int) error) error {
	var count atomic.Int64
	next := func() int { return int(count.Add(1) - 1) }
	return n.each(func(int) error { return f(next) })
}
