// SPDX-License-Identifier: Apache-2.0

//go:build linux && !arm

package vfs

import (
	"os"
	"syscall"
)

// flush begins a write and does not wait for any. If it waited, Linux would report an error of the disk here, and not again
// in the next sync. A file system that cannot begin a write ignores it.
func flush(f *os.File, at, n int64) {
	const begin = 2 // SYNC_FILE_RANGE_WRITE
	_ = syscall.SyncFileRange(int(f.Fd()), at, n, begin)
}
