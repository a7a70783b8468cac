// SPDX-License-Identifier: Apache-2.0

package vfs

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// offered skips a test on systems on which a Syncer only calls File.Sync.
func offered(t *testing.T) {
	t.Helper()
	var s Syncer
	defer s.Close()
	s.mu.Lock()
	ok := s.open()
	s.mu.Unlock()
	if !ok {
		t.Skip("the system offers no asynchronous syncs")
	}
}

func writtenFile(t *testing.T) File {
	t.Helper()
	f, err := OS{}.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.WriteAt(make([]byte, 100<<10), 0)
	require.NoError(t, err)
	return f
}

func TestSyncerSyncs(t *testing.T) {
	offered(t)
	var s Syncer
	f := writtenFile(t)
	for range 3 {
		require.NoError(t, s.Sync(f))
	}
	require.False(t, s.refused, "the kernel has made the syncs")
	require.NoError(t, s.Close())
	require.NoError(t, s.Sync(f), "without its descriptors, a Syncer calls File.Sync")
	require.NoError(t, s.Close())
}

// A pipe cannot be synced, and the kernel says so at once.
func TestSyncerFallsBack(t *testing.T) {
	offered(t)
	var s Syncer
	defer s.Close()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	err = s.Sync(osFile{w})
	require.True(t, s.refused)
	require.Equal(t, osFile{w}.Sync(), err)
	require.NoError(t, s.Sync(writtenFile(t)))
}

func TestSyncerReturnsTheErrorOfASync(t *testing.T) {
	f := writtenFile(t)
	require.NoError(t, f.Close())
	var s Syncer
	defer s.Close()
	var failed *SyncError
	require.ErrorAs(t, s.Sync(f), &failed)
}

// A file of tests is not the operating system's: its own Sync decides.
func TestSyncerCallsTheSyncOfOtherFiles(t *testing.T) {
	f := &countingFile{}
	var s Syncer
	require.NoError(t, s.Sync(f))
	require.Equal(t, 1, f.syncs)
}

type countingFile struct {
	File
	syncs int
}

func (f *countingFile) Sync() error {
	f.syncs++
	return nil
}

func TestSyncerServesSeveralGoroutines(t *testing.T) {
	var s Syncer
	f := writtenFile(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				if err := s.Sync(f); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, s.Close())
}
