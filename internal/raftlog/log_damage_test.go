// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage/storagetest"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A victim is a closed log. All its changes were acknowledged.
type victim struct {
	image    map[string][]byte // the files
	segments []string
	want     []*raft.Log
	before   []*raft.Log // the log without its last batch
	applied  uint64
	snapshot string             // the newest one
	ends     map[string][]int64 // of the batches of a segment
}

// newVictim makes a log of several segments, with several batches each, and two snapshots.
func newVictim(t testing.TB) *victim {
	t.Helper()
	files := vfs.NewMemory().Mount()
	v := &victim{image: map[string][]byte{}, ends: map[string][]int64{}}
	l := openSized(t, files, tinySegment)
	require.NoError(t, l.Identify(crashIdentity))
	elect(t, l, 3, "a")
	elect(t, l, 4, "b")
	add := func(logs ...*raft.Log) {
		v.before = v.want
		keep(t, l, logs...)
		v.want = append(v.want[:len(v.want):len(v.want)], logs...)
		name, end := newestSegment(t, files)
		v.ends[name] = append(v.ends[name], end)
	}
	truncate := func(low uint64) {
		require.NoError(t, l.Logs().DeleteRange(low, v.want[len(v.want)-1].Index))
		v.want = v.want[: low-1 : low-1]
	}
	add(storagetest.Entries(1, 5, 1)...)
	add(sized(6, 500), storagetest.Entry(7, 2))
	// A segment that loses its last batch leaves no gap here but older entries.
	truncate(4)
	add(storagetest.Entries(4, 6, 3)...)
	add(sized(7, 800))
	truncate(7)
	add(storagetest.Entries(7, 8, 4)...)
	add(sized(9, 600), storagetest.Entry(10, 4))
	snapshot(t, l, 1, 1)
	v.snapshot = snapshot(t, l, 2, 1)
	v.applied = 8
	l.Applied(v.applied)
	add(storagetest.Entries(11, 12, 4)...)
	add(storagetest.Entries(13, 13, 4)...)
	add(storagetest.Entries(14, 16, 4)...)
	finish(t, l)
	v.segments = names(t, files, segmentDir, segmentSuffix)
	require.Len(t, v.segments, 3)
	for _, name := range v.segments {
		require.GreaterOrEqual(t, len(v.ends[name]), 2)
	}
	for _, dir := range []string{"", segmentDir, snapshotDir} {
		for _, name := range names(t, files, dir, "") {
			if filepath.Base(name) != segmentDir && filepath.Base(name) != snapshotDir {
				v.image[name] = vfstest.Load(t, files, name)
			}
		}
	}
	return v
}

// open opens the log with one file replaced by b, or removed if b is nil. It returns a nil Log if Open
// found the damage.
func (v *victim) open(t testing.TB, name string, b []byte, what string) (vfs.FS, *Log) {
	t.Helper()
	files := vfs.NewMemory().Mount()
	for _, dir := range []string{segmentDir, snapshotDir} {
		require.NoError(t, files.MkdirAll(filepath.Join(home, dir)))
	}
	for other, whole := range v.image {
		if other != name {
			vfstest.Save(t, files, other, whole)
		} else if b != nil {
			vfstest.Save(t, files, name, b)
		}
	}
	r, readErr := Read(files, home, segments.Format{})
	require.NoError(t, readErr, what)
	require.NoError(t, r.Close(), what)
	l, err := openWith(files, home, false, tinySegment)
	requireRead(t, r, l, err, what)
	if err == nil {
		return files, l
	}
	var corrupt *CorruptError
	if errors.Is(err, wire.ErrFormat) { // the version changed in a place that no checksum covers
		require.ErrorContains(t, err, name, what)
		return nil, nil
	}
	require.ErrorAs(t, err, &corrupt, what)
	if corrupt.File == filepath.Join(home, snapshotDir) { // Open takes a log without its beginning for damage of the snapshots
		require.Equal(t, v.segments[0], name, what)
		require.Nil(t, b, what)
	} else {
		require.Equal(t, name, corrupt.File, what)
	}
	return nil, nil
}

// requireAll checks that the log has the entries of want, and that it can be used. Entries after them may
// be missing.
func (v *victim) requireAll(t testing.TB, files vfs.FS, l *Log, want []*raft.Log, what string) {
	t.Helper()
	requireSame(t, want, all(t, l), what)
	id, known := l.Identity()
	require.True(t, known && id == crashIdentity, what)
	requireBallot(t, l, 4, 4, "b")
	require.Equal(t, v.applied, l.Recorded(), what)

	next := l.Durable() + 1
	want = append(want[:len(want):len(want)], storagetest.Entry(next, 9), storagetest.Entry(next+1, 9))
	keep(t, l, want[len(want)-2])
	keep(t, l, want[len(want)-1])
	finish(t, l)
	l, err := openWith(files, home, false, tinySegment)
	require.NoError(t, err, what)
	requireSame(t, want, all(t, l), what)
	finish(t, l)
}

// requireSame is a fast require.Equal.
func requireSame(t testing.TB, want, got []*raft.Log, what string) {
	t.Helper()
	same := len(want) == len(got)
	for i := 0; same && i < len(want); i++ {
		same = want[i].Index == got[i].Index && want[i].Term == got[i].Term && bytes.Equal(want[i].Data, got[i].Data)
	}
	if !same {
		require.Equal(t, span(want), span(got), what)
		require.Equal(t, want, got, what)
	}
}

func TestFlippedBitIsFoundOrHarmless(t *testing.T) {
	v := newVictim(t)
	for _, name := range append(v.segments, filepath.Join(home, identityFile), voteName) {
		found, size := 0, len(v.image[name])
		for at := range size {
			if name == voteName && at%slotSize > 40 && at%64 > 0 || testing.Short() && at > 64 && at%3 > 0 {
				continue
			}
			what := fmt.Sprintf("a flip at %d of %s", at, name)
			damaged := bytes.Clone(v.image[name])
			damaged[at] ^= 1 << (at % 8)
			files, l := v.open(t, name, damaged, what)
			if l == nil {
				found++
				continue
			}
			v.requireAll(t, files, l, v.want, what)
		}
		t.Logf("%d of %d in %s were found", found, size, name)
	}
}

func TestCutFileIsFoundOrLacksNothing(t *testing.T) {
	v := newVictim(t)
	for _, name := range append(v.segments, filepath.Join(home, identityFile)) {
		for at := range v.image[name] {
			if testing.Short() && at > 64 && at%3 > 0 {
				continue
			}
			what := fmt.Sprintf("a cut at %d of %s", at, name)
			files, l := v.open(t, name, v.image[name][:at], what)
			if l != nil {
				v.requireAll(t, files, l, v.want, what)
			}
		}
	}
}

func TestMissingFileIsFound(t *testing.T) {
	v := newVictim(t)
	_, l := v.open(t, v.segments[0], nil, "the first segment")
	require.Nil(t, l)
	_, l = v.open(t, voteName, nil, "the vote")
	require.Nil(t, l)
}

func TestMissingMiddleSegmentIsFound(t *testing.T) {
	v := newVictim(t)
	files := vfs.NewMemory().Mount()
	for _, dir := range []string{segmentDir, snapshotDir} {
		require.NoError(t, files.MkdirAll(filepath.Join(home, dir)))
	}
	for name, b := range v.image {
		if name != v.segments[1] {
			vfstest.Save(t, files, name, b)
		}
	}
	_, err := Open(files, home, segments.Format{}, false)
	var corrupt *CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.Equal(t, v.segments[2], corrupt.File, "the segment after the gap")
}

// The body of a snapshot is checked when it is read, which is before it is used.
func TestDamagedSnapshotIsFound(t *testing.T) {
	v := newVictim(t)
	name := filepath.Join(home, snapshotDir, v.snapshot+snapshotSuffix)
	whole := v.image[name]
	header := len(whole) - len(body(t, "state 2"))
	for at := range whole {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 1 << (at % 8)
		for what, b := range map[string][]byte{"a flip": damaged, "a cut": whole[:at:at]} {
			what := fmt.Sprintf("%s at %d", what, at)
			if at == 0 && len(b) == 0 {
				b = []byte{}
			}
			_, l := v.open(t, name, b, what)
			if l == nil {
				require.Less(t, at, header, what)
				continue
			}
			require.GreaterOrEqual(t, at, header, what)
			_, err := records(t, l, v.snapshot)
			require.Error(t, err, what)
			finish(t, l)
		}
	}
}
