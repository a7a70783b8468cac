// SPDX-License-Identifier: Apache-2.0

package dsync

import "errors"

// Compare errors with [errors.Is]. Errors of package coterie are returned as they are.
var (
	// ErrFull means that as many participants as the [DoubleBarrier] is for are inside already. Try again when
	// they have left.
	ErrFull = errors.New("dsync: the double barrier is full")
	// ErrOverflow means that the result is not an int64. The call changed nothing.
	ErrOverflow = errors.New("dsync: the counter overflows")
	// ErrForeignValue means that a key has a value that this package did not write. The text has the key.
	ErrForeignValue = errors.New("dsync: a value that this package did not write")
)
