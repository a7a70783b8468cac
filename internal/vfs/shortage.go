// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"errors"
	"slices"
	"syscall"
)

// A SyncError says that the system failed to make data durable. It is not known which part of the data is
// on the disk, so the sync is never retried: see Short.
type SyncError struct{ Err error }

func (e *SyncError) Error() string { return e.Err.Error() }

// Unwrap returns the system's error.
func (e *SyncError) Unwrap() error { return e.Err }

func syncError(err error) error {
	if err == nil {
		return nil
	}
	return &SyncError{err}
}

// Short reports whether an operation failed because the system is short of a resource that may become
// available again: disk space, file descriptors, memory or time. Such an operation can be repeated. A
// failed sync is never short, whatever its error number.
func Short(err error) bool {
	if err == nil { // the usual case, without the memory that errors.As needs
		return false
	}
	var sync *SyncError
	return !errors.As(err, &sync) && slices.ContainsFunc(shortages, func(short syscall.Errno) bool { return errors.Is(err, short) })
}
