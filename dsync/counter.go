// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"fmt"

	"github.com/coterie-kv/coterie"
)

// A Counter is a number to which all that use its key add, on any node. Its methods may be called
// concurrently. Share one Counter in a process: its callers take turns.
//
// An addition is one write. It is a second one, after a first that changes nothing, if this Counter does not know
// the present number: after another instance's addition, and at its first use of a key that exists. A Counter is
// not for events that many instances count hundreds of times a second: count those in each instance and add
// the sums. The value of the key is the number in decimal.
type Counter struct{ c *cell }

// NewCounter returns the Counter that is stored in a key. It does not contact the cluster. A missing key counts
// as 0.
func NewCounter(n *coterie.Node, key string) *Counter { return &Counter{newCell(n, key)} }

// Add adds delta, which may be negative, and returns the sum. It blocks until the write is applied.
//
// Errors: ErrOverflow; ErrForeignValue; those of a transaction. After coterie.ErrMaybeApplied delta may have
// been added. A caller that must know adds in a transaction of package stm instead.
func (c *Counter) Add(ctx context.Context, delta int64) (int64, error) {
	return c.c.update(ctx, func(was int64) (int64, []coterie.Op, error) {
		is := was + delta
		if (is > was) != (delta > 0) && delta != 0 {
			return 0, nil, fmt.Errorf("%w: %d and %d", ErrOverflow, was, delta)
		}
		return is, nil, nil
	})
}

// Get returns the number. It is a linearizable read.
//
// Errors: ErrForeignValue; those of Get.
func (c *Counter) Get(ctx context.Context) (int64, error) {
	r, err := c.c.n.Get(ctx, c.c.key)
	if err != nil {
		return 0, err
	}
	return number(c.c.found(r.KVs))
}
