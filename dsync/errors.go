// SPDX-License-Identifier: Apache-2.0

package dsync

import "errors"

// Errors are compared with [errors.Is]. Those of package coterie come as they are.
var (
	// ErrFull: as many as the [DoubleBarrier] is for are inside already. Try again when they have
	// left.
	ErrFull = errors.New("dsync: the double barrier is full")
	// ErrOverflow: the sum is not an int64. Nothing was changed.
	ErrOverflow = errors.New("dsync: the counter overflows")
	// ErrForeignValue: the store has a value that this package did not write; the text says where.
	ErrForeignValue = errors.New("dsync: a value of somebody else")
)
