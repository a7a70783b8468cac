// SPDX-License-Identifier: Apache-2.0

package conversion

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/segments"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

const home = "/node"

// formats are the formats of the tests, by their names.
var formats = map[string]storage.Format{storage.Segments: segments.Format{SegmentSize: 4 << 10}, storage.Bolt: simple{}}

var sampleReached = storage.Extent{Index: 60, Term: 4, Snapshot: 20}

// sample returns a disk with a directory of a format.
func sample(t *testing.T, format storage.Format) *vfs.Memory {
	t.Helper()
	disk := vfs.NewForgetful()
	files := disk.Mount()
	require.NoError(t, files.MkdirAll(home))
	store, err := format.Open(files, home)
	require.NoError(t, err)
	_, err = store.Load()
	require.NoError(t, err)
	var all []*raft.Log
	for i := range uint64(50) {
		all = append(all, &raft.Log{Index: 11 + i, Term: 3 + i/40, Type: raft.LogType(i % 3), Data: bytes.Repeat([]byte{byte(i)}, int(7*i)),
			AppendedAt: time.Unix(int64(i), 7)})
	}
	all[4].Extensions = []byte("extensions")
	all[6].AppendedAt = time.Time{}
	for len(all) > 0 {
		_, err = store.Write([]storage.Change{{Kind: storage.Append, Entries: all[:10]}}, 10+uint64(50-len(all))/2)
		require.NoError(t, err)
		all = all[10:]
	}
	store.Extend(sampleReached)
	require.NoError(t, store.Vote().Save(wire.Uint(nil, 2, 4)))
	require.NoError(t, store.Identity().Save(wire.Uint(nil, 1, 99)))
	store.Sync()
	require.NoError(t, store.Close())
	return disk
}

// contents describes the data of a format in a directory.
func contents(t *testing.T, files vfs.FS, dir string, format storage.Format) string {
	t.Helper()
	r, err := format.Read(vfs.ReadOnly(files), dir, func(file string, err error) { t.Errorf("%s: %v", file, err) })
	require.NoError(t, err)
	is := r.Loaded()
	text := fmt.Sprintln(is)
	for index := is.First; index > 0 && index <= is.Last; index++ {
		l, err := r.Entry(index)
		require.NoError(t, err)
		text += fmt.Sprintln(l.Index, l.Term, l.Type, l.Data, l.Extensions, l.AppendedAt.UnixNano())
	}
	for _, read := range []func() ([]byte, error){r.Vote, r.Identity} {
		b, err := read()
		require.NoError(t, err)
		text += fmt.Sprintln(b)
	}
	require.NoError(t, r.Close())
	return text
}

// convert converts a directory.
func convert(files vfs.FS, from, to storage.Format, change ...func(*Conversion)) error {
	if err := Settle(files, home); err != nil {
		return err
	}
	old, err := from.Read(vfs.ReadOnly(files), home, func(string, error) {})
	if err != nil {
		return err
	}
	c := Conversion{From: from, To: to, Kept: from.Name() + "-1", Reached: old.Loaded().Reached, Broken: func() error { return nil }}
	for _, fn := range change {
		fn(&c)
	}
	return c.Run(files, home, old)
}

// is checks that a directory has the data of a format, and nothing of another format.
func is(t *testing.T, files vfs.FS, format storage.Format, want string) {
	t.Helper()
	names, err := Formats(files, home)
	require.NoError(t, err)
	require.Equal(t, []string{format.Name()}, names)
	names, err = storage.Detect(files, home)
	require.NoError(t, err)
	require.Equal(t, []string{format.Name()}, names)
	require.Equal(t, want, contents(t, files, home, format))
}

func bothWays(t *testing.T, fn func(t *testing.T, from, to storage.Format)) {
	for name, from := range formats {
		to := formats[map[string]string{storage.Segments: storage.Bolt, storage.Bolt: storage.Segments}[name]]
		t.Run("from "+name, func(t *testing.T) { fn(t, from, to) })
	}
}

func TestConversionCopiesEverything(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to storage.Format) {
		disk := sample(t, from)
		files := disk.Mount()
		want := contents(t, files, home, from)
		require.Contains(t, want, fmt.Sprint(sampleReached))
		require.NoError(t, convert(files, from, to))
		is(t, files, to, want)
		require.Equal(t, want, contents(t, files, filepath.Join(home, from.Name()+"-1"), from), "the old files are kept")
		n, err := ReadNote(files, home)
		require.NoError(t, err)
		require.Nil(t, n)

		require.NoError(t, convert(files, to, from))
		is(t, files, from, want)
		err = convert(files, from, to)
		require.ErrorIs(t, err, fs.ErrExist, "the files of an earlier conversion are not replaced")
		is(t, files, from, want)
		require.NoError(t, convert(files, from, to, func(c *Conversion) { c.Kept = from.Name() + "-2" }))
		is(t, files, to, want)
	})
}

func TestConversionOfEmptyLog(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to storage.Format) {
		for _, applied := range []uint64{0, 7} {
			files := vfs.NewMemory().Mount()
			require.NoError(t, files.MkdirAll(home))
			store, err := from.Open(files, home)
			require.NoError(t, err)
			_, err = store.Load()
			require.NoError(t, err)
			if applied > 0 {
				_, err = store.Write(nil, applied)
				require.NoError(t, err)
			}
			require.NoError(t, store.Close())
			want := contents(t, files, home, from)
			require.NoError(t, convert(files, from, to))
			is(t, files, to, want)
		}
	})
}

// Every way to end after every change leaves a directory of one of the two formats, with everything in it. So does
// every way to end while an interrupted conversion is undone or completed.
func TestConversionIsAtomic(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to storage.Format) {
		want := contents(t, sample(t, from).Mount(), home, from)
		ends := map[string]func(*vfs.Memory){
			"killed":  (*vfs.Memory).Kill,
			"crashed": func(d *vfs.Memory) { d.Crash(nil) },
			"torn":    func(d *vfs.Memory) { d.Crash(rand.New(rand.NewPCG(1, 2))) },
		}
		for end, stop := range ends {
			converted := 0
			for n, done := 0, false; !done; n++ {
				require.Less(t, n, 500)
				disk := sample(t, from)
				disk.FreezeAfter(n)
				done = convert(disk.Mount(), from, to) == nil
				stop(disk)
				format := formats[from.Name()]
				for m, settled := n%3, false; !settled; m++ {
					files := disk.Mount()
					names, err := Formats(files, home)
					require.NoError(t, err, "%s after %d and %d", end, n, m)
					require.Len(t, names, 1)
					format = formats[names[0]]
					require.Equal(t, want, contents(t, files, home, format), "%s after %d and %d", end, n, m)
					disk.FreezeAfter(m)
					settled = Settle(files, home) == nil
					stop(disk)
				}
				files := disk.Mount()
				is(t, files, format, want)
				if done {
					require.Equal(t, to.Name(), format.Name())
				}
				if format.Name() == to.Name() {
					converted++
					require.Equal(t, want, contents(t, files, filepath.Join(home, from.Name()+"-1"), from))
					continue
				}
				require.NoError(t, convert(files, from, to), "%s after %d", end, n)
				is(t, files, to, want)
			}
			require.Greater(t, converted, 3, "the last steps do not matter")
		}
	})
}

// A process is killed before it syncs the directory with the note of a conversion that is done. The machine then crashes
// while the next process removes the old files: the note must be durable before that.
func TestSettleSyncsNoteOfKilledProcess(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to storage.Format) {
		want := contents(t, sample(t, from).Mount(), home, from)
		for steps, settled := 0, false; !settled; steps++ {
			require.Less(t, steps, 500)
			for seed := range uint64(4) {
				disk := sample(t, from)
				require.ErrorIs(t, convert(unsynced{disk.Mount()}, from, to), errUnsynced)
				disk.Kill()
				files := disk.Mount()
				disk.FreezeAfter(steps)
				settled = Settle(files, home) == nil
				disk.Crash(rand.New(rand.NewPCG(seed, 1)))
				files = disk.Mount()
				names, err := Formats(files, home)
				require.NoError(t, err)
				require.Len(t, names, 1)
				require.Equal(t, want, contents(t, files, home, formats[names[0]]), "after %d", steps)
			}
		}
	})
}

var errUnsynced = errors.New("not synced")

// An unsynced file system does not sync the directory when the note says that a conversion is done.
type unsynced struct{ vfs.FS }

func (u unsynced) SyncDir(dir string) error {
	if n, err := ReadNote(u.FS, home); dir == home && err == nil && n != nil && n.Done {
		return errUnsynced
	}
	return u.FS.SyncDir(dir)
}

func TestConversionWithoutSpaceChangesNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to storage.Format) {
		want := contents(t, sample(t, from).Mount(), home, from)
		failed := 0
		for n, done := 0, false; !done; n++ {
			require.Less(t, n, 500)
			disk := sample(t, from)
			files := disk.Mount()
			steps := 0
			err := convert(files, from, to, func(c *Conversion) {
				c.Broken = func() error {
					if steps++; steps > n {
						disk.Fill(true)
					}
					return nil
				}
			})
			if done = err == nil; done {
				continue
			}
			failed++
			require.True(t, vfs.Short(err), err)
			disk.Fill(false)
			is(t, files, from, want)
			require.NoError(t, convert(files, from, to))
			is(t, files, to, want)
		}
		require.Greater(t, failed, 0)
	})
}

// A conversion that fails before its note is written leaves no part of the note. Settle removes the part that a killed
// process has left.
func TestNoPartOfTheNoteIsLeft(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to storage.Format) {
		disk := sample(t, from)
		files := disk.Mount()
		before, err := files.ReadDir(home)
		require.NoError(t, err)
		disk.Fill(true)
		require.True(t, vfs.Short(convert(files, from, to)))
		disk.Fill(false)
		after, err := files.ReadDir(home)
		require.NoError(t, err)
		require.Equal(t, before, after)

		part, err := files.Create(filepath.Join(home, noteFile+storage.PartSuffix))
		require.NoError(t, err)
		require.NoError(t, part.Close())
		require.NoError(t, Settle(files, home))
		after, err = files.ReadDir(home)
		require.NoError(t, err)
		require.Equal(t, before, after)
	})
}

// If only old files cannot be removed, the error says that the directory has the new format.
func TestErrorNamesFormatOfConvertedDirectory(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to storage.Format) {
		disk := sample(t, from)
		want := contents(t, disk.Mount(), home, from)
		files := stuck{disk.Mount(), from.Name()}
		err := convert(files, from, to)
		require.ErrorIs(t, err, fs.ErrPermission)
		require.ErrorContains(t, err, "has the format "+to.Name()+" now")
		names, err := Formats(files, home)
		require.NoError(t, err)
		require.Equal(t, []string{to.Name()}, names)
		require.NoError(t, Settle(disk.Mount(), home))
		is(t, disk.Mount(), to, want)
	})
}

// A stuck file system does not remove the files of a format.
type stuck struct {
	vfs.FS
	format string
}

func (s stuck) Remove(name string) error {
	names, err := storage.FilesOf(s.FS, home, s.format)
	if err != nil || slices.Contains(names, name) {
		return errors.Join(err, &fs.PathError{Op: "remove", Path: name, Err: fs.ErrPermission})
	}
	return s.FS.Remove(name)
}

func TestConversionOutlivesShortageAtEveryStep(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to storage.Format) {
		want := contents(t, sample(t, from).Mount(), home, from)
		for n, done := 0, false; !done; n++ {
			require.Less(t, n, 2000)
			disk := sample(t, from)
			files := disk.Mount()
			disk.Shortage(n, syscall.EMFILE)
			err := convert(files, from, to)
			disk.Shortage(0, nil)
			done = err == nil
			require.NoError(t, Settle(files, home), "after %d", n)
			names, err := Formats(files, home)
			require.NoError(t, err)
			require.Len(t, names, 1)
			is(t, files, formats[names[0]], want)
		}
	})
}

func TestConversionEndsWithItsContext(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to storage.Format) {
		enough := errors.New("enough")
		disk := sample(t, from)
		want := contents(t, disk.Mount(), home, from)
		for n, done := 0, false; !done; n++ {
			files := disk.Mount()
			steps := 0
			err := convert(files, from, to, func(c *Conversion) {
				c.Broken = func() error {
					if steps++; steps > n {
						return enough
					}
					return nil
				}
			})
			if done = err == nil; done {
				require.NotZero(t, n)
				continue
			}
			require.ErrorIs(t, err, enough)
			is(t, files, from, want)
		}
	})
}

// The new files are read back and compared, so a format that loses something is noticed.
func TestConversionComparesEverything(t *testing.T) {
	for name, spoil := range map[string]func(*simpleData){
		"no last entry": func(d *simpleData) { d.Entries = d.Entries[:max(len(d.Entries)-1, 0)] },
		"data":          func(d *simpleData) { change(d, func(l *raft.Log) { l.Data = []byte("other") }) },
		"extensions":    func(d *simpleData) { change(d, func(l *raft.Log) { l.Extensions = []byte("other") }) },
		"term":          func(d *simpleData) { change(d, func(l *raft.Log) { l.Term++ }) },
		"type":          func(d *simpleData) { change(d, func(l *raft.Log) { l.Type++ }) },
		"time":          func(d *simpleData) { change(d, func(l *raft.Log) { l.AppendedAt = l.AppendedAt.Add(1) }) },
		"applied":       func(d *simpleData) { d.Applied++ },
		"vote":          func(d *simpleData) { d.Vote = wire.Uint(nil, 2, 5) },
		"no vote":       func(d *simpleData) { d.Vote = nil },
		"identity":      func(d *simpleData) { d.Identity = wire.Uint(nil, 1, 98) },
		"no identity":   func(d *simpleData) { d.Identity = nil },
	} {
		from := formats[storage.Segments]
		files := sample(t, from).Mount()
		want := contents(t, files, home, from)
		err := convert(files, from, simple{spoil: spoil})
		require.ErrorContains(t, err, "the copy as bolt", name)
		is(t, files, from, want)
	}
}

func TestDamageOfNewFilesIsFound(t *testing.T) {
	from, broken := formats[storage.Segments], errors.New("broken")
	files := sample(t, from).Mount()
	want := contents(t, files, home, from)
	require.ErrorIs(t, convert(files, from, simple{damage: broken}), broken)
	is(t, files, from, want)
}

// The copies of the old files are read back and compared, too.
func TestConversionComparesKeptFiles(t *testing.T) {
	bothWays(t, func(t *testing.T, from, to storage.Format) {
		files := sample(t, from).Mount()
		want := contents(t, files, home, from)
		err := convert(spoiling{files}, from, to)
		require.ErrorContains(t, err, "the copy as "+from.Name())
		is(t, files, from, want)
	})
}

// A spoiling file system loses writes to the files of the subdirectory of a conversion.
type spoiling struct{ vfs.FS }

func (s spoiling) Create(name string) (vfs.File, error) {
	file, err := s.FS.Create(name)
	if strings.Contains(name, "-1/") {
		file = spoiled{file}
	}
	return file, err
}

type spoiled struct{ vfs.File }

func (spoiled) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// change changes one of the entries.
func change(d *simpleData, fn func(*raft.Log)) {
	if len(d.Entries) > 30 {
		d.Entries = append([]raft.Log(nil), d.Entries...)
		fn(&d.Entries[30])
	}
}

func TestDamagedNoteIsFound(t *testing.T) {
	for _, text := range []string{
		"", "from", "from segments to bolt, the old files are in segments-1, begun", // no end of line
		"from segments to segments, the old files are in segments-1, begun\n",
		"from segments to other, the old files are in segments-1, begun\n",
		"from segments to bolt, the old files are in log, done\n",
		"from segments to bolt, the old files are in segments-1/.., done\n",
		"from segments to bolt, the old files are in segments-1, perhaps\n",
	} {
		files := vfs.NewMemory().Mount()
		require.NoError(t, files.MkdirAll(home))
		file, err := files.Create(filepath.Join(home, noteFile))
		require.NoError(t, err)
		_, err = file.WriteAt([]byte(text), 0)
		require.NoError(t, err)
		_, err = Formats(files, home)
		var corrupt *storage.CorruptError
		require.ErrorAs(t, err, &corrupt, text)
		require.Equal(t, filepath.Join(home, noteFile), corrupt.File)
		require.ErrorAs(t, Settle(files, home), &corrupt)
	}
	want := &Note{From: storage.Bolt, To: storage.Segments, Kept: "bolt-20261126T201501Z"}
	for range 2 {
		n, err := parseNote(want.text())
		require.NoError(t, err)
		require.Equal(t, want, n)
		want.Done = true
	}
}

func TestMixedFilesAreTwoFormats(t *testing.T) {
	files := sample(t, formats[storage.Segments]).Mount()
	store, err := simple{}.Open(files, home)
	require.NoError(t, err)
	require.NoError(t, store.Close())
	names, err := Formats(files, home)
	require.NoError(t, err)
	require.Equal(t, []string{storage.Segments, storage.Bolt}, names)
}
