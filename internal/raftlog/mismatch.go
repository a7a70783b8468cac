// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"fmt"
	"strings"

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

// A MixedError says that a directory has files of several formats, which no conversion has put there. It matches
// fault.ErrStorageMismatch.
type MixedError struct {
	Dir string
	Has []string // the names of the formats
}

func (e *MixedError) Error() string {
	return fmt.Sprintf("%v: %s has files of the formats %s, and no conversion is under way; they may be of two copies of a directory. "+
		"Nothing was changed. Move the files of one format elsewhere, and start the node with the other",
		fault.ErrStorageMismatch, e.Dir, strings.Join(e.Has, " and "))
}

// Unwrap returns fault.ErrStorageMismatch.
func (e *MixedError) Unwrap() error { return fault.ErrStorageMismatch }
