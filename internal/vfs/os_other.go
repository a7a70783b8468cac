// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package vfs

import "os"

func syncFile(f *os.File) error { return f.Sync() }

func allocate(f *os.File, size int64) error { return lengthen(f, size) }
