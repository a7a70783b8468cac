// SPDX-License-Identifier: Apache-2.0

package vfs

import "syscall"

// shortages are the error numbers that Short recognizes.
var shortages = []syscall.Errno{
	4,    // ERROR_TOO_MANY_OPEN_FILES
	8,    // ERROR_NOT_ENOUGH_MEMORY
	14,   // ERROR_OUTOFMEMORY
	39,   // ERROR_HANDLE_DISK_FULL
	112,  // ERROR_DISK_FULL
	1295, // ERROR_DISK_QUOTA_EXCEEDED
	1450, // ERROR_NO_SYSTEM_RESOURCES
	1455, // ERROR_COMMITMENT_LIMIT
}
