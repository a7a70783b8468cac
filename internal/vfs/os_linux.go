// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"errors"
	"os"
	"syscall"
)

// syncFile skips metadata that reading does not need, such as the time of the change.
func syncFile(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return wrap("fdatasync", f, err)
		}
	}
}

func allocate(f *os.File, size int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS):
			return lengthen(f, size)
		default:
			return wrap("fallocate", f, err)
		}
	}
}

func wrap(op string, f *os.File, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: f.Name(), Err: err}
}
