// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"errors"
	"slices"
	"syscall"
)

// A SyncError says that the system failed to make something durable. After it nobody knows which
// part of what was written is on the disk, so it is never tried again: see Short.
type SyncError struct{ Err error }

func (e *SyncError) Error() string { return e.Err.Error() }

// Unwrap returns what the system said.
func (e *SyncError) Unwrap() error { return e.Err }

func syncError(err error) error {
	if err == nil {
		return nil
	}
	return &SyncError{err}
}

// Short reports whether an operation failed because the system is short of something that it may
// have again: room on the disk, file descriptors, memory, or time. The operation did nothing that
// another try would not do again. A sync that failed is never short, whatever its error number.
func Short(err error) bool {
	var sync *SyncError
	return !errors.As(err, &sync) && slices.ContainsFunc(shortages, func(short syscall.Errno) bool { return errors.Is(err, short) })
}
