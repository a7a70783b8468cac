// SPDX-License-Identifier: Apache-2.0

package queue

import "errors"

// Compare errors with [errors.Is]. Errors of package coterie are returned as they are.
var (
	// ErrEmpty means that no item waits.
	ErrEmpty = errors.New("queue: no item waits")
	// ErrExists means that an item of this name is in the queue, waiting or taken.
	ErrExists = errors.New("queue: an item of this name exists")
)
