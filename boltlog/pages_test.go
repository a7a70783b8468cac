// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A victim is a file that has pages of every kind: free ones, one that spans several, a tree of two levels, and a list
// of free pages.
type victim struct {
	file []byte
	want []*raft.Log
	page int
	dir  string // where damaged copies are opened
}

func newVictim(t testing.TB) *victim {
	t.Helper()
	v := &victim{dir: t.TempDir(), page: os.Getpagesize()}
	s := open(t, t.TempDir())
	next := uint64(1)
	add := func(n, size int) {
		batch := entries(next, next+uint64(n)-1, size)
		next += uint64(n)
		v.want = append(v.want, batch...)
		write(t, s, 5, appended(batch))
	}
	for range 10 {
		add(6, v.page/20)
	}
	add(1, 2*v.page)
	add(6, 300)
	require.NoError(t, s.Compact(21))
	v.want = v.want[20:]
	require.NoError(t, s.Vote().Save([]byte("vote")))
	add(5, 100)
	require.NoError(t, s.Close())
	var err error
	v.file, err = os.ReadFile(s.db.name)
	require.NoError(t, err)
	return v
}

// open writes a damaged file and opens it. It returns nil if the damage was found.
func (v *victim) open(t testing.TB, damaged []byte, what string) *store {
	t.Helper()
	path := filepath.Join(v.dir, logFile)
	require.NoError(t, os.WriteFile(path, damaged, 0o600))
	_ = os.Remove(filepath.Join(v.dir, noteFile)) // the copies are opened in any order
	s, err := openStore(vfs.OS{}, v.dir, Options{})
	if err == nil {
		return s
	}
	var corrupt *storage.CorruptError
	require.ErrorAs(t, err, &corrupt, what)
	require.Equal(t, path, corrupt.File, what)
	reported := 0
	r, err := read(vfs.ReadOnly(vfs.OS{}), v.dir, func(file string, err error) {
		reported++
		require.Equal(t, path, file, what)
		require.ErrorAs(t, err, &corrupt, what)
	})
	require.NoError(t, err, what)
	require.NotZero(t, reported, what)
	require.NoError(t, r.Close(), what)
	return nil
}

// pageOf returns the offset of the first page in use that has a flag.
func (v *victim) pageOf(t testing.TB, flag uint16) int {
	t.Helper()
	m := v.newest(t)
	none := func(string) visitor { return func([]byte, []byte, int64) {} }
	c := &checker{r: bytes.NewReader(v.file), pageSize: int64(v.page), known: make([]bool, m.end), buckets: none, visited: map[string]bool{}}
	require.NoError(t, c.tree(m.root, nil, nil, 0, c.root))
	_, _, err := c.header(m.freelist)
	require.NoError(t, err)
	for id := uint64(2); id < uint64(len(c.known)); id++ {
		at := int(id) * v.page
		if c.known[id] && binary.NativeEndian.Uint64(v.file[at:]) == id && binary.NativeEndian.Uint16(v.file[at+8:]) == flag {
			return at
		}
	}
	require.FailNow(t, "there is no such page")
	return 0
}

func (v *victim) newest(t testing.TB) meta {
	t.Helper()
	m, err := readMetas(bytes.NewReader(v.file))
	require.NoError(t, err)
	return m
}

func TestDamageIsFoundOrHarmless(t *testing.T) {
	v := newVictim(t)
	r := rand.New(rand.NewPCG(3, 4))
	passed, found := 0, 0
	for at := range v.file[:int(v.newest(t).end)*v.page] {
		// Each byte of the headers and elements, and samples of the rest of a page.
		if at%v.page > 64 && r.IntN(40) > 0 {
			continue
		}
		mask := []byte{0x01, 0x80, 0xff}[r.IntN(3)]
		v.file[at] ^= mask
		c, err := readContents(bytes.NewReader(v.file), int64(len(v.file)))
		if err == nil {
			passed++
			require.Len(t, c.entries, len(v.want))
		} else {
			found++
		}
		if r.IntN(50) == 0 {
			what := fmt.Sprintf("flipped at %d of page %d", at%v.page, at/v.page)
			s := v.open(t, v.file, what)
			require.Equal(t, err == nil, s != nil, what)
			if s != nil {
				holds(t, s, 5, v.want)
				require.NoError(t, s.Close())
			}
		}
		v.file[at] ^= mask
	}
	t.Logf("%d were found, %d passed", found, passed)
	require.Greater(t, found, 500)
	require.Greater(t, passed, 100)
}

func TestEntriesBeforeDamageAreRead(t *testing.T) {
	v := newVictim(t)
	middle := v.want[len(v.want)/2]
	at := bytes.Index(v.file[2*v.page:], middle.Data[:50]) + 2*v.page
	for from := at; ; { // there may be older copies in free pages
		v.file[from] ^= 1
		next := bytes.Index(v.file[from+1:], middle.Data[:50])
		if next < 0 {
			break
		}
		from += 1 + next
	}
	require.Nil(t, v.open(t, v.file, "an entry"))
	r, err := read(vfs.ReadOnly(vfs.OS{}), v.dir, func(_ string, err error) {
		require.ErrorContains(t, err, fmt.Sprintf("the checksum of entry %d is wrong", middle.Index))
	})
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, storage.Loaded{First: v.want[0].Index, Last: middle.Index - 1, Applied: 5}, r.Loaded())
	for _, l := range v.want {
		got, err := r.Entry(l.Index)
		if l.Index >= middle.Index {
			require.Equal(t, raft.ErrLogNotFound, err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, l, got)
	}
	vote, err := r.Vote()
	require.NoError(t, err)
	require.Equal(t, "vote", string(vote))
}

func TestTruncatedFileIsFound(t *testing.T) {
	v := newVictim(t)
	end := int(v.newest(t).end) * v.page
	for _, size := range []int{0, 1, 16, 79, 80, v.page - 1, v.page, v.page + 79, 2*v.page - 1, 2 * v.page, 3*v.page + 5, end / 2, end - v.page, end - 1} {
		require.Nil(t, v.open(t, v.file[:size], fmt.Sprint(size)), "cut at %d of %d", size, end)
	}
	s := v.open(t, v.file[:end], "the rest is not used")
	require.NotNil(t, s)
	holds(t, s, 5, v.want)
	require.NoError(t, s.Close())
}

func TestOtherFilesAreFound(t *testing.T) {
	v := newVictim(t)
	for _, b := range [][]byte{[]byte("text"), make([]byte, 4*v.page), bytes.Repeat([]byte{0xff}, 4*v.page), bytes.Repeat([]byte("text"), 4*v.page)} {
		require.Nil(t, v.open(t, b, "another file"))
	}
}

// Bbolt never returns from such a page.
func TestPageThatLeadsToItselfIsFound(t *testing.T) {
	v := newVictim(t)
	at := v.pageOf(t, flagBranch)
	binary.NativeEndian.PutUint64(v.file[at+pageHeader+8:], uint64(at/v.page))
	require.Nil(t, v.open(t, v.file, "a loop"))
}

// Bbolt would overwrite it.
func TestUsedPageInTheFreeListIsFound(t *testing.T) {
	v := newVictim(t)
	at := v.pageOf(t, flagFreelist)
	require.NotZero(t, binary.NativeEndian.Uint16(v.file[at+10:]))
	binary.NativeEndian.PutUint64(v.file[at+pageHeader:], uint64(v.pageOf(t, flagLeaf)/v.page))
	require.Nil(t, v.open(t, v.file, "used and free"))
}

// Bbolt would use the older one, which lacks the last write.
func TestDamagedMetaPageIsFound(t *testing.T) {
	v := newVictim(t)
	for id := range 2 {
		damaged := bytes.Clone(v.file)
		damaged[id*v.page+pageHeader+48] ^= 1
		require.Nil(t, v.open(t, damaged, "meta page"))
		r, err := read(vfs.OS{}, v.dir, func(string, error) {})
		require.NoError(t, err)
		require.NotZero(t, r.Loaded().Last) // as the other page has it
		require.NoError(t, r.Close())
	}
}

// Bbolt would allocate more memory than any machine has.
func TestFreeListThatIsTooLongIsFound(t *testing.T) {
	v := newVictim(t)
	at := v.pageOf(t, flagFreelist)
	binary.NativeEndian.PutUint16(v.file[at+10:], 0xFFFF)
	binary.NativeEndian.PutUint64(v.file[at+pageHeader:], 1<<40)
	require.Nil(t, v.open(t, v.file, "too long"))
}

// A page that claims to span most of a large file takes no more memory than its elements.
func TestPageThatIsTooLongTakesNoMemory(t *testing.T) {
	v := newVictim(t)
	const pages = 1 << 16
	at := int(v.newest(t).root) * v.page // it is read first
	binary.NativeEndian.PutUint32(v.file[at+12:], uint32(pages-at/v.page-1))
	for id := range 2 {
		binary.NativeEndian.PutUint64(v.file[id*v.page+pageHeader+40:], pages)
		sealMeta(v.file[id*v.page:])
	}
	name := filepath.Join(t.TempDir(), logFile)
	require.NoError(t, os.WriteFile(name, v.file, 0o600))
	require.NoError(t, os.Truncate(name, pages*int64(v.page))) // the end is a hole
	file, err := os.Open(name)
	require.NoError(t, err)
	defer file.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = readContents(file, pages*int64(v.page))
	require.Error(t, err)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(32<<20))
}

// With a renamed bucket, the log would have no entries.
func TestRenamedBucketIsFound(t *testing.T) {
	v := newVictim(t)
	root := int(v.newest(t).root) * v.page
	at := bytes.Index(v.file[root:], []byte(bucketLogs)) + root
	v.file[at+3]++
	require.Nil(t, v.open(t, v.file, "another name"))
}

// sealMeta makes the checksum of a meta page right.
func sealMeta(page []byte) {
	sum := fnv.New64a()
	sum.Write(page[pageHeader : pageHeader+metaSize-8])
	binary.NativeEndian.PutUint64(page[pageHeader+metaSize-8:], sum.Sum64())
}

func TestImpossibleMetaPagesAreFound(t *testing.T) {
	v := newVictim(t)
	for name, change := range map[string]func(page []byte){
		"no page size":      func(page []byte) { binary.NativeEndian.PutUint32(page[pageHeader+8:], 0) },
		"another page size": func(page []byte) { binary.NativeEndian.PutUint32(page[pageHeader+8:], 512) },
		"a huge page size":  func(page []byte) { binary.NativeEndian.PutUint32(page[pageHeader+8:], 1<<31) },
		"too many pages":    func(page []byte) { binary.NativeEndian.PutUint64(page[pageHeader+40:], 1<<60) },
		"no pages":          func(page []byte) { binary.NativeEndian.PutUint64(page[pageHeader+40:], 0) },
		"a root elsewhere":  func(page []byte) { binary.NativeEndian.PutUint64(page[pageHeader+16:], 1<<50) },
		"a meta page below": func(page []byte) { binary.NativeEndian.PutUint64(page[pageHeader+16:], 1) },
		"no list":           func(page []byte) { binary.NativeEndian.PutUint64(page[pageHeader+32:], 1<<63) },
		"another version":   func(page []byte) { binary.NativeEndian.PutUint32(page[pageHeader+4:], 3) },
	} {
		damaged := bytes.Clone(v.file)
		for id := range 2 {
			page := damaged[id*v.page:]
			change(page)
			sealMeta(page)
		}
		require.Nil(t, v.open(t, damaged, name), name)
	}
}

func TestLockOfDamagedFileIsReleased(t *testing.T) {
	v := newVictim(t)
	for _, at := range []int{pageHeader, v.pageOf(t, flagBranch) + 8, v.pageOf(t, flagFreelist) + 8} {
		damaged := bytes.Clone(v.file)
		damaged[at] ^= 0xff
		require.Nil(t, v.open(t, damaged, "damaged"))
		// The file is repaired in place, because the lock belongs to the file.
		file, err := os.OpenFile(filepath.Join(v.dir, logFile), os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = file.WriteAt(v.file, 0)
		require.NoError(t, err)
		require.NoError(t, file.Close())
		s := open(t, v.dir)
		holds(t, s, 5, v.want)
		require.NoError(t, s.Close())
	}
}

// FuzzPages damages a file, and makes sure that bbolt can read each file that passes the check.
func FuzzPages(f *testing.F) {
	v := newVictim(f)
	f.Add(uint32(0), []byte{1})
	for _, flag := range []uint16{flagBranch, flagLeaf, flagFreelist} {
		at := uint32(v.pageOf(f, flag))
		for _, offset := range []uint32{0, 8, 10, 12, 16, 20, 24, 28} {
			f.Add(at+offset, []byte{1})
			f.Add(at+offset, []byte{0xff, 0xff, 0xff, 0xff})
		}
	}
	f.Fuzz(func(t *testing.T, at uint32, flip []byte) {
		damaged := bytes.Clone(v.file)
		for i, mask := range flip {
			damaged[(int(at)+i)%len(damaged)] ^= mask
		}
		for id := range 2 {
			sealMeta(damaged[id*v.page:]) // no fuzzer finds a checksum by itself
		}
		none := func(string) visitor { return func([]byte, []byte, int64) {} }
		if _, err := checkPages(bytes.NewReader(damaged), int64(len(damaged)), none); err != nil {
			return
		}
		path := filepath.Join(v.dir, logFile)
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
		require.NoError(t, err)
		defer db.Close()
		sum := fnv.New64a()
		require.NoError(t, db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				return b.ForEach(func(k, v []byte) error {
					require.Equal(t, v, b.Get(k))
					sum.Write(v) // reads each byte
					return nil
				})
			})
		}))
	})
}
