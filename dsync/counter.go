// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"fmt"

	"github.com/coterie-kv/coterie"
)

// A Counter is a number that all who know its key add to, on any node. Its methods may be called
// concurrently; share one Counter in a process, for its callers take turns.
//
// An addition costs one write, and another, which is refused, whenever this Counter does not know
// the number: when another's addition came between, and at its first use of a key that exists. Do
// not use it for what is counted hundreds of times a second in many instances: count there, and add
// the sums. The value is the number in decimal.
type Counter struct{ c *cell }

// NewCounter returns the Counter that is a key; nothing is asked of the cluster. A missing key is
// 0.
func NewCounter(n *coterie.Node, key string) *Counter { return &Counter{newCell(n, key)} }

// Add adds delta, which may be negative, and returns the sum. It blocks until that is applied.
//
// Errors: ErrOverflow; ErrForeignValue; those of a transaction. After coterie.ErrMaybeApplied delta
// may have been added, and whoever must know for certain adds in a transaction of package stm.
func (c *Counter) Add(ctx context.Context, delta int64) (int64, error) {
	return c.c.update(ctx, func(was int64) (int64, []coterie.Op, error) {
		is := was + delta
		if (is > was) != (delta > 0) && delta != 0 {
			return 0, nil, fmt.Errorf("%w: %d and %d", ErrOverflow, was, delta)
		}
		return is, nil, nil
	})
}

// Get returns the number. It is linearizable.
//
// Errors: ErrForeignValue; those of Get.
func (c *Counter) Get(ctx context.Context) (int64, error) {
	r, err := c.c.n.Get(ctx, c.c.key)
	if err != nil {
		return 0, err
	}
	return number(c.c.found(r.KVs))
}
