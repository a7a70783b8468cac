// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package vfs

import "syscall"

// shortages are the error numbers that Short recognizes.
var shortages = []syscall.Errno{
	syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EAGAIN, syscall.EINTR,
}
