// SPDX-License-Identifier: Apache-2.0

// Package vfstest helps to test operations on a file system, and those that a slow disk interrupts.
package vfstest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/vfs"
)

// UntilDone calls do with contexts that end later each time, on a slow disk, until it succeeds. Each call has a site
// of its own, with its disk. After each call that ended early, UntilDone calls undone. It runs in a synctest bubble.
func UntilDone[S any](t *testing.T, site func() (S, *vfs.Memory), do func(ctx context.Context, s S) error, undone func(s S)) {
	t.Helper()
	ended := 0
	for limit := time.Duration(0); ; limit += 5 * time.Millisecond {
		s, disk := site()
		disk.Delay(10 * time.Millisecond)
		ctx, cancel := context.WithTimeout(vfs.With(t.Context(), disk.Mount()), limit)
		err := do(ctx, s)
		cancel()
		disk.Delay(0)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		undone(s)
		ended++
	}
	require.Greater(t, ended, 3)
	require.Less(t, ended, 100)
}
