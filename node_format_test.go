// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// newestStream is the newest version of a stream of records. The other formats have version 1.
const newestStream = 2

// requireOther checks that an error reports data of the version after the newest one, and not damage.
func requireOther(t *testing.T, err error, what string) {
	t.Helper()
	var other *coterie.FormatError
	require.ErrorAs(t, err, &other)
	require.Contains(t, other.What, what)
	reads := uint64(1)
	if what == "stream of records" {
		reads = newestStream
	}
	require.Equal(t, []uint64{reads + 1, reads}, []uint64{other.Version, other.Reads})
	require.ErrorIs(t, err, coterie.ErrFormat)
	require.NotErrorIs(t, err, coterie.ErrCorrupt)
	require.NotContains(t, err.Error(), "remove")
	require.NotContains(t, err.Error(), "empty directory")
}

// rewrite changes a file.
func rewrite(t *testing.T, disk *vfs.Memory, name string, change func(b []byte)) {
	t.Helper()
	f, err := disk.Mount().Open(name)
	require.NoError(t, err)
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	require.NoError(t, err)
	change(b)
	_, err = f.WriteAt(b, 0)
	require.NoError(t, err)
}

// After a failed upgrade, the earlier program must not ask the operator to remove data that the newer program wrote.
func TestOtherFormatDirIsNotCorrupt(t *testing.T) {
	for what, c := range map[string]struct {
		file string
		at   int
	}{"identity": {"identity", 6}, "snapshot": {"snapshots", 7}, "stream of records": {"snapshots", 0}} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := vfs.NewForgetful()
				ctx := vfs.With(t.Context(), disk.Mount())
				cfg := coterie.Config{InMemory: true, SnapshotEntries: 20}
				n, err := coterie.Open(ctx, cfg)
				require.NoError(t, err)
				for range 50 {
					put(t, n, "k", "v")
				}
				time.Sleep(time.Second)
				synctest.Wait() // until a snapshot is taken
				require.NoError(t, n.Close())
				dir := "/" + n.Status().Name
				file := dir + "/" + c.file
				if c.file == "snapshots" {
					names, err := disk.Mount().ReadDir(file)
					require.NoError(t, err)
					file += "/" + names[len(names)-1]
				}
				rewrite(t, disk, file, func(b []byte) {
					if at := c.at; at > 0 {
						b[at] = 2
					} else {
						b[bytes.Index(b, []byte("COTERIE"))+len("COTERIE")] = newestStream + 1
					}
				})
				_, err = coterie.Open(ctx, cfg)
				requireOther(t, err, what)
				in, err := datadir.Inspect(ctx, dir)
				requireOther(t, err, what)
				require.Len(t, in.OtherFormats, 1)
				require.Contains(t, in.OtherFormats[0].What, file)
				require.Empty(t, in.DamagedFiles)
				_, err = datadir.Recover(ctx, dir)
				requireOther(t, err, what)
			})
		})
	}
}

// An entry from a leader of a newer version stops the node, which must not continue without the entry. Its directory
// is intact.
func TestOtherFormatEntryIsNotCorrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewForgetful()
		ctx := vfs.With(t.Context(), disk.Mount())
		cfg := coterie.Config{InMemory: true}
		n, err := coterie.Open(ctx, cfg)
		require.NoError(t, err)
		put(t, n, "k", "v")
		time.Sleep(time.Minute) // until the node is on record, so that its log does not grow any more
		name, last := n.Status().Name, n.Status().Applied
		require.NoError(t, n.Close())
		appendEntry(t, disk, "/"+name, last+1, []byte{2, 0, 0, 0, 0})
		n, err = coterie.Open(ctx, cfg)
		if err == nil {
			<-n.Done()
			err = n.Err()
			require.NoError(t, n.Close())
		}
		requireOther(t, err, "log entry")
		_, err = datadir.Inspect(ctx, "/"+name)
		requireOther(t, err, "log entry in /"+name+"/log/")
	})
}

// appendEntry appends a command to a node's log.
func appendEntry(t *testing.T, disk *vfs.Memory, dir string, index uint64, data []byte) {
	t.Helper()
	log, err := raftlog.Open(disk.Mount(), dir, segments.Format{}, false)
	require.NoError(t, err)
	before, err := log.Entry(index - 1)
	require.NoError(t, err)
	entry := *before
	entry.Index, entry.Type, entry.Data = index, 0, data
	require.NoError(t, log.Logs().StoreLog(&entry))
	require.NoError(t, log.Close(t.Context()))
}

func TestOtherFormatBackupIsNotCorrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true})
		require.NoError(t, err)
		var b bytes.Buffer
		_, err = n.Backup(t.Context(), &b)
		require.NoError(t, err)
		require.NoError(t, n.Close())
		b.Bytes()[6] = 2
		_, err = datadir.InspectBackup(t.Context(), bytes.NewReader(b.Bytes()))
		requireOther(t, err, "backup")
		err = coterie.RestoreBackup(t.Context(), bytes.NewReader(b.Bytes()), coterie.Config{Name: "a", Dir: t.TempDir() + "/new"})
		requireOther(t, err, "backup")
	})
}

// A node with another version of the protocol gets an error that says so, and Ready returns it. The error does not
// claim that the nodes belong to different clusters.
func TestOtherFormatHelloIsReported(t *testing.T) {
	network := coterie.NewMemoryNetwork()
	synctest.Test(t, func(t *testing.T) {
		l, err := network.Listen("b:1")
		require.NoError(t, err)
		go func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer nc.Close()
					_, _ = nc.Read(make([]byte, 256))
					_, _ = nc.Write([]byte("cot\xe9\x02\x00"))
				}()
			}
		}()
		n, err := coterie.Open(t.Context(), coterie.Config{
			InMemory: true, Name: "a", Addr: "a:1", Network: network,
			Founders: []coterie.Founder{{Name: "a", Addr: "a:1"}, {Name: "b", Addr: "b:1"}},
		})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err = n.Ready(ctx)
		requireOther(t, err, "hello")
		require.False(t, errors.Is(err, coterie.ErrClusterMismatch), err)
		require.NoError(t, l.Close())
		require.NoError(t, n.Close())
	})
}
