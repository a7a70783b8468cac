// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"sync"
	"sync/atomic"
)

// goroutines is a number of goroutines that work at the same time.
type goroutines int

// each calls f once in each goroutine, with its index, and returns when all calls have returned. The error is one of those
// that the calls have returned: often all have failed for the same reason.
func (n goroutines) each(f func(i int) error) error {
	errs := make([]error, n)
	var working sync.WaitGroup
	for i := range int(n) {
		working.Go(func() { errs[i] = f(i) })
	}
	working.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// repeat calls f in each goroutine. The function next, which they share, counts from 0.
func (n goroutines) repeat(f func(next func() int) error) error {
	var count atomic.Int64
	next := func() int { return int(count.Add(1) - 1) }
	return n.each(func(int) error { return f(next) })
}
