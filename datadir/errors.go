// SPDX-License-Identifier: Apache-2.0

package datadir

import (
	"errors"
	"fmt"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/wire"
)

// Errors of [Recover] and [Convert]. Compare them with [errors.Is].
var (
	// ErrNothingToRecover: the directory belongs to a node that was never let into a cluster, or that has
	// taken part in nothing since the cluster was founded. Recover another directory, or begin a new cluster.
	ErrNothingToRecover = errors.New("datadir: nothing to recover")
	// ErrBehind: another survivor has more than the directory that was to be recovered. [BehindError] says
	// which one. Recover that one.
	ErrBehind = errors.New("datadir: another survivor has more")
	// ErrSameStorage: the directory already has the storage that was passed to [Convert].
	ErrSameStorage = errors.New("datadir: the directory has this storage already")
)

// A BehindError says which survivor has more than the directory that was to be recovered. It matches
// [ErrBehind].
type BehindError struct {
	Member coterie.MemberID `json:"member"`
	Dir    string           `json:"dir"`   // as in its Inspection
	Index  uint64           `json:"index"` // of its last entry
	Term   uint64           `json:"term"`  // of its last entry
}

func (e *BehindError) Error() string {
	return fmt.Sprintf("%v: member %v (%s) has entries up to %d of term %d; recover that one", ErrBehind, e.Member, e.Dir, e.Index, e.Term)
}

// Is reports whether target is ErrBehind.
func (e *BehindError) Is(target error) bool { return target == ErrBehind }

// logError returns the public form of an error of package raftlog.
func logError(err error) error {
	if format := formatError(err); format != nil {
		return format
	}
	return raftlog.Fault(err)
}

// formatError returns the public form of an error about another version's format, or nil.
func formatError(err error) *coterie.FormatError {
	var format *wire.FormatError
	if !errors.As(err, &format) {
		return nil
	}
	return &coterie.FormatError{What: format.What, Version: format.Version, Reads: format.Reads, Err: err}
}
