// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
)

// An otherFormat is a format that a directory of segments does not have.
type otherFormat struct{ segments.Format }

func (otherFormat) Name() string { return storage.Bolt }

func TestDirectoryOfAnotherFormatIsRejected(t *testing.T) {
	disk := outlived(t)
	files := disk.Mount()
	before := disk.Changes()
	_, opened := Open(files, home, otherFormat{}, false)
	_, read := Read(files, home, otherFormat{})
	recovered := Recover(files, home, otherFormat{}, continuation(t, "state"))
	for _, err := range []error{opened, read, recovered, Fault(opened)} {
		require.ErrorIs(t, err, fault.ErrStorageMismatch)
		var mismatch *MismatchError
		require.ErrorAs(t, err, &mismatch)
		require.Equal(t, MismatchError{Dir: home, Has: storage.Segments, Wants: storage.Bolt}, *mismatch)
	}
	require.ErrorContains(t, opened, "leave Config.Storage nil, or convert the directory with datadir.Convert or coterie-inspect convert -to bolt")
	require.ErrorIs(t, Found(files, home, otherFormat{}, founding(t, "state")), fault.ErrDirNotEmpty)
	require.Equal(t, before, disk.Changes(), "nothing is changed")

	files = vfs.NewMemory().Mount()
	require.NoError(t, files.MkdirAll(home))
	vfstest.Save(t, files, home+"/log.db", nil)
	_, err := Open(files, home, segments.Format{}, false)
	require.ErrorIs(t, err, fault.ErrStorageMismatch)
	require.ErrorContains(t, err, "set Config.Storage to boltlog.New(boltlog.Options{}), or convert")
	require.ErrorContains(t, err, "-to segments")
	_, err = Read(files, home, segments.Format{})
	require.ErrorIs(t, err, fault.ErrStorageMismatch)
}
