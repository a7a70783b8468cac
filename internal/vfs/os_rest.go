// SPDX-License-Identifier: Apache-2.0

//go:build !unix || aix || solaris

package vfs

import "os"

// lockFile does nothing: here the operator must start only one node per directory.
func lockFile(*os.File) error { return nil }

// unlockFile does nothing, like lockFile.
func unlockFile(*os.File) error { return nil }

// syncDir does nothing: these systems offer no way to sync a directory.
func syncDir(string) error { return nil }
