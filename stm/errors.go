// SPDX-License-Identifier: Apache-2.0

package stm

import "errors"

// Compare errors with [errors.Is]. Errors of package coterie are returned as they are.
var (
	// ErrTxDone means that a Tx was used after its function had returned. The call changed nothing.
	ErrTxDone = errors.New("stm: the transaction has ended")
	// ErrNested means that Run was called with the context of a Tx, within a function of Run. Pass the Tx on
	// instead.
	ErrNested = errors.New("stm: a transaction within a transaction")
)
