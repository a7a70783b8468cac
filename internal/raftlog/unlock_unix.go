// SPDX-License-Identifier: Apache-2.0

//go:build unix && !aix && !solaris

package raftlog

import (
	"os"
	"syscall"
)

// release gives up the lock of a file that bbolt has left open and mapped: to close it is not
// enough, for the mapping holds it.
func release(file *os.File) {
	_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN) // the file is given up whatever it says
	file.Close()
}
