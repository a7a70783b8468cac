// SPDX-License-Identifier: Apache-2.0

// Package stm runs functions as transactions: a function reads and writes keys as if it were alone,
// and either all it wrote is in the store, in one revision, or nothing is.
//
//	_, err := stm.Run(ctx, n, func(tx *stm.Tx) error {
//		from, _, err := tx.Get("accounts/alice")
//		…
//		return tx.Put("accounts/alice", less)
//	})
//
// All reads are of one revision. What was written is committed on the condition that nothing that
// was read has changed since; if it has, the function runs again. So transactions are strictly
// serializable, those that only read included, and functions must have no effects but those on
// their [Tx]. It stands on exported calls of package coterie alone.
//
// A transaction costs a linearizable read, and one write unless it only reads; one more of each for
// each time that another came between. Do not use it where a single coterie.Txn does, nor for keys
// that hundreds change at the same time, nor for a function that takes long.
package stm
