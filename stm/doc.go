// SPDX-License-Identifier: Apache-2.0

// Package stm runs functions as transactions. A function reads and writes keys as if it ran alone. Either all its
// writes are in the store, in one revision, or none is.
//
//	_, err := stm.Run(ctx, n, func(tx *stm.Tx) error {
//		from, _, err := tx.Get("accounts/alice")
//		…
//		return tx.Put("accounts/alice", less)
//	})
//
// # Guarantees
//
// All reads of a [Tx] are of one revision. [Run] commits the writes on the condition that no key that was read has
// changed since. If one has, the function runs again. So transactions are strictly serializable, including those that
// only read, and a function must have no effects other than those on its Tx.
//
// # Costs
//
// A transaction costs a linearizable read, and one write unless it only reads. Each conflict costs one more of both. A
// single [coterie.Txn] is cheaper where it suffices. Do not use this package for keys that hundreds of instances change
// at the same time, nor for functions that take long.
//
// # Contexts
//
// The context of Run bounds the call. Without a quorum Run blocks until it ends.
//
// This package uses only the exported API of package coterie, so it can be copied and changed.
package stm
