// SPDX-License-Identifier: Apache-2.0

//go:build !unix || aix || solaris

package raftlog

import "os"

// release closes a file that bbolt has left open. Its lock ends with the process.
func release(file *os.File) { file.Close() }
