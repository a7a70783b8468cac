// SPDX-License-Identifier: Apache-2.0

// Package fault has the error values that package coterie shares with the packages below internal/.
//
// Package coterie documents them and exports them under the same names, for instance
//
//	ErrClosed = fault.ErrClosed
//
// so an error that an internal package returns matches the public value with [errors.Is]. An internal package
// cannot use the public names, because package coterie imports it. Errors that only package coterie itself
// returns are defined there.
package fault

import (
	"errors"
	"fmt"
)

// The values are documented in package coterie.
var (
	ErrClosed       = errors.New("coterie: closed")
	ErrNotLeader    = errors.New("coterie: not the leader") // not public: see package coterie's transport
	ErrNoLeader     = errors.New("coterie: no leader")
	ErrMaybeApplied = errors.New("coterie: the write may have been applied")

	ErrInvalidOption = errors.New("coterie: invalid option")

	ErrTooManyOps = errors.New("coterie: too many operations in a transaction")
	ErrTooLarge   = errors.New("coterie: request is too large")
	ErrNoSpace    = errors.New("coterie: no space")
	ErrOverloaded = errors.New("coterie: overloaded")

	ErrClusterMismatch = errors.New("coterie: cluster or member mismatch")
	ErrDirMismatch     = errors.New("coterie: the data directory is not the one on record for this member")
	ErrDuplicateNode   = errors.New("coterie: another node runs on a copy of the directory")
	ErrMemberNotFound  = errors.New("coterie: member not found")
	ErrMemberExists    = errors.New("coterie: member exists")
	ErrMemberNotReady  = errors.New("coterie: the member has not caught up")
	ErrUnhealthy       = errors.New("coterie: too few members can be reached")

	ErrDirInUse          = errors.New("coterie: data directory in use")
	ErrDirNotEmpty       = errors.New("coterie: data directory is not empty")
	ErrStorageMismatch   = errors.New("coterie: the data directory has another storage")
	ErrRestoreUnfinished = errors.New("coterie: restoring a backup was not finished")
	ErrFormat            = errors.New("coterie: another version's format")
	ErrCorrupt           = errors.New("coterie: corrupt data")
)

// A LimitError says which limit a request exceeds. Package coterie returns it as a coterie.LimitError.
type LimitError struct {
	Limit, Actual int64
	Kind          error  // one of ErrTooManyOps, ErrTooLarge, ErrNoSpace and ErrOverloaded
	Unit          string // of Limit and Actual, for the text
	Field         string // of coterie.Config, which sets the limit
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%v: %d %s, the limit is %d (Config.%s)", e.Kind, e.Actual, e.Unit, e.Limit, e.Field)
}

// Is reports whether target is the kind of the error.
func (e *LimitError) Is(target error) bool { return target == e.Kind }
