// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"fmt"

	"github.com/coterie-kv/coterie/internal/fault"
)

// A MismatchError says that a directory has the data of another format. It matches fault.ErrStorageMismatch.
type MismatchError struct {
	Dir   string
	Has   string // the name of the format of the directory
	Wants string // the name of the format with which it was to be opened
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%v: %s has the format %q, and the node is configured for %q; set Config.Storage for the format of the directory, "+
		"or convert the directory with datadir.Convert or coterie-inspect convert", fault.ErrStorageMismatch, e.Dir, e.Has, e.Wants)
}

// Unwrap returns fault.ErrStorageMismatch.
func (e *MismatchError) Unwrap() error { return fault.ErrStorageMismatch }
