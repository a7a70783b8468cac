// SPDX-License-Identifier: Apache-2.0

// Package boltlog keeps the log of a node in a file of bbolt.
package boltlog
