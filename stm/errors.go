// SPDX-License-Identifier: Apache-2.0

package stm

import "errors"

// Errors are compared with [errors.Is]. Those of package coterie come as they are.
var (
	// ErrEnded: a Tx was used after its function had returned. Nothing was changed by that.
	ErrEnded = errors.New("stm: the transaction has ended")
	// ErrNested: Run was called in a function of Run, with the context of its Tx. Hand the Tx on
	// instead.
	ErrNested = errors.New("stm: a transaction within a transaction")
)
