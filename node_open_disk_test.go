// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// The disk fails at each step of Open. Open returns the error and leaves nothing behind: the bubble ends, and the
// directory can be opened again. The stores of raft wait on a failure, because raft would panic on an error; Open
// must not wait for them.
func TestOpenFailsIfTheDiskFails(t *testing.T) {
	gone := errors.New("gone")
	open := func(t *testing.T, disk *vfs.Memory) (*coterie.Node, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return coterie.Open(vfs.With(ctx, disk.Mount()), coterie.Config{InMemory: true, SnapshotEntries: 20})
	}
	write := func(t *testing.T, n *coterie.Node) {
		for i := range 30 {
			put(t, n, "k", fmt.Sprint(i))
		}
	}
	for name, prepare := range map[string]func(t *testing.T, disk *vfs.Memory){
		"the first start": func(*testing.T, *vfs.Memory) {},
		"a later start": func(t *testing.T, disk *vfs.Memory) {
			n, err := open(t, disk)
			require.NoError(t, err)
			write(t, n)
			require.NoError(t, n.Close())
		},
		"after a crash": func(t *testing.T, disk *vfs.Memory) {
			n, err := open(t, disk)
			require.NoError(t, err)
			write(t, n)
			disk.Crash(nil)
			n.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			good := 0
			for opened := false; !opened; good++ {
				synctest.Test(t, func(t *testing.T) {
					disk := vfs.NewForgetful()
					prepare(t, disk)
					disk.BreakAfter(good, gone)
					n, err := open(t, disk)
					if opened = err == nil; opened { // Open needs fewer operations
						n.Close()
						return
					}
					require.ErrorIs(t, err, gone, "after %d operations", good)
					disk.BreakAfter(0, nil)
					if good%2 == 0 { // else Open must have released the lock
						disk.Crash(nil)
					}
					n, err = open(t, disk)
					require.NoError(t, err, "after %d operations", good)
					write(t, n)
					require.NoError(t, n.Check(t.Context()))
					require.NoError(t, n.Close())
				})
			}
			t.Log("Open takes", good, "operations")
			require.Greater(t, good, 15)
		})
	}
}
