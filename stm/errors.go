// SPDX-License-Identifier: Apache-2.0

package stm

import "errors"

// Errors are compared with [errors.Is]. Those of package coterie come as they are.
var (
	// ErrTxDone means that a Tx was used after its function had returned. The call changed nothing.
	ErrTxDone = errors.New("stm: the transaction has ended")
	// ErrNested: Run was called in a function of Run, with the context of its Tx. Hand the Tx on
	// instead.
	ErrNested = errors.New("stm: a transaction within a transaction")
)
