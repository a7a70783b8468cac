// SPDX-License-Identifier: Apache-2.0

package queue

import "errors"

// Errors are compared with [errors.Is]. Those of package coterie come as they are.
var (
	// ErrEmpty: no item waits.
	ErrEmpty = errors.New("queue: no item waits")
	// ErrExists: an item of that name is in the queue, waiting or taken.
	ErrExists = errors.New("queue: an item of that name exists")
)
