// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
)

// A victim is a file with a bit of everything: pages that are free, that flow over, a tree of two
// levels, and a list of free pages.
type victim struct {
	file    []byte
	want    []*raft.Log
	content []bool // of each byte, whether it is of a record: a key with its value
	page    int
	dir     string // where damaged ones are opened
}

func newVictim(t testing.TB) *victim {
	t.Helper()
	v := &victim{dir: t.TempDir(), page: os.Getpagesize()}
	dir := t.TempDir()
	l := open(t, dir)
	next := uint64(1)
	add := func(n, size int) {
		var batch []*raft.Log
		for range n {
			log := sized(next, size)
			log.AppendedAt = log.AppendedAt.UTC()
			batch = append(batch, log)
			next++
		}
		v.want = append(v.want, batch...)
		require.NoError(t, l.Logs().StoreLogs(batch))
	}
	for range 10 {
		add(6, v.page/20)
	}
	add(1, 2*v.page)
	add(6, 300)
	require.NoError(t, l.Logs().DeleteRange(1, 20))
	v.want = v.want[20:]
	require.NoError(t, l.Stable().SetUint64([]byte("CurrentTerm"), 7))
	add(5, 100)
	require.NoError(t, l.Close())

	path := filepath.Join(dir, logFile)
	var err error
	v.file, err = os.ReadFile(path)
	require.NoError(t, err)
	v.content = make([]bool, len(v.file))
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(key, value []byte) error {
				v.mark(append(bytes.Clone(key), value...))
				return nil
			})
		})
	}))
	require.NoError(t, db.Close())
	return v
}

// mark notes where a record is; there may be old copies of it in free pages.
func (v *victim) mark(record []byte) {
	for at := 0; ; {
		i := bytes.Index(v.file[at:], record)
		if i < 0 {
			return
		}
		for j := range record {
			v.content[at+i+j] = true
		}
		at += i + 1
	}
}

// open writes a damaged file and opens it. It returns nil if the damage was found.
func (v *victim) open(t testing.TB, damaged []byte, what string) *Log {
	t.Helper()
	path := filepath.Join(v.dir, logFile)
	require.NoError(t, os.WriteFile(path, damaged, 0o600))
	l, err := Open(v.dir, hclog.NewNullLogger())
	if err == nil {
		return l
	}
	var corrupt *CorruptError
	require.ErrorAs(t, err, &corrupt, what)
	require.Equal(t, path, corrupt.File, what)
	require.Nil(t, l)
	return nil
}

// pageOf returns the offset of the first page with this flag, of those that are in use.
func (v *victim) pageOf(t testing.TB, flag uint16) int {
	t.Helper()
	c := v.checker(t)
	for id := uint64(2); id < uint64(len(c.known)); id++ {
		at := int(id) * v.page
		if c.known[id] && binary.NativeEndian.Uint64(v.file[at:]) == id && binary.NativeEndian.Uint16(v.file[at+8:]) == flag {
			return at
		}
	}
	require.FailNow(t, "there is no such page")
	return 0
}

// checker returns one that has met the pages of the tree and the list of free pages, but not those.
func (v *victim) checker(t testing.TB) *checker {
	t.Helper()
	m := v.newest()
	c := &checker{r: bytes.NewReader(v.file), pageSize: int64(v.page), known: make([]bool, m.end)}
	require.NoError(t, c.tree(m.root, nil, nil))
	_, err := c.page(m.freelist)
	require.NoError(t, err)
	return c
}

func (v *victim) newest() meta {
	a, _ := readMeta(bytes.NewReader(v.file), 0, 0)
	b, _ := readMeta(bytes.NewReader(v.file), int64(v.page), 1)
	if a.transaction > b.transaction {
		return a
	}
	return b
}

func TestDamageOfAFileIsFoundOrHarmless(t *testing.T) {
	v := newVictim(t)
	r := random(t)
	passed, found := 0, 0
	for at := range v.file {
		// Headers and what follows them byte by byte, the rest of a page here and there.
		if at%v.page > 64 && r.IntN(80) > 0 {
			continue
		}
		mask := []byte{0x01, 0x80, 0xff}[r.IntN(3)]
		v.file[at] ^= mask
		harmless := checkPages(bytes.NewReader(v.file), int64(len(v.file))) == nil
		if harmless {
			passed++
		} else {
			found++
		}
		if r.IntN(50) == 0 { // to open a file takes long
			v.openFlipped(t, at, harmless)
		}
		v.file[at] ^= mask
	}
	t.Logf("%d were found, %d passed", found, passed)
	require.Greater(t, found, 500)
	require.Greater(t, passed, 500)
}

// openFlipped opens the file, which is damaged at one byte, and checks what came of it.
func (v *victim) openFlipped(t *testing.T, at int, harmless bool) {
	t.Helper()
	what := fmt.Sprintf("flipped at %d of page %d", at%v.page, at/v.page)
	l := v.open(t, v.file, what)
	if l == nil {
		return
	}
	defer l.Close()
	require.True(t, harmless, "%s: it was found and opened", what)
	changed := 0
	for _, w := range v.want {
		got, err := read(l.Logs(), w.Index)
		require.NoError(t, err, what)
		if !bytes.Equal(w.Data, got.Data) || w.Term != got.Term {
			changed++
		}
	}
	if v.content[at] {
		// Bbolt has no checksums: an entry has to find by its own that its content is damaged.
		require.LessOrEqual(t, changed, 1, what)
	} else {
		require.Zero(t, changed, what)
		holds(t, l.Logs(), v.want...)
	}
	require.NoError(t, l.Logs().StoreLog(sized(v.want[len(v.want)-1].Index+1, 2*v.page)), what)
}

func TestATruncatedFileIsFound(t *testing.T) {
	v := newVictim(t)
	end := int(v.newest().end) * v.page
	for _, size := range []int{1, 16, 79, 80, v.page - 1, v.page, v.page + 79, 2*v.page - 1, 2 * v.page, 3*v.page + 5, end / 2, end - v.page, end - 1} {
		require.Nil(t, v.open(t, v.file[:size], fmt.Sprint(size)), "cut at %d of %d", size, end)
	}
	l := v.open(t, v.file[:end], "what follows is not used")
	require.NotNil(t, l)
	holds(t, l.Logs(), v.want...)
	require.NoError(t, l.Close())

	// A crash may have come when the file was made and nothing was written to it.
	l = v.open(t, nil, "nothing")
	require.NotNil(t, l)
	holds(t, l.Logs())
	require.NoError(t, l.Close())
}

func TestAFileOfSomethingElseIsFound(t *testing.T) {
	v := newVictim(t)
	for _, b := range [][]byte{[]byte("text"), make([]byte, 4*v.page), bytes.Repeat([]byte{0xff}, 4*v.page), bytes.Repeat([]byte("text"), 4*v.page)} {
		require.Nil(t, v.open(t, b, "something else"))
	}
}

// Bbolt follows such a page for ever.
func TestAPageThatLeadsBackToItselfIsFound(t *testing.T) {
	v := newVictim(t)
	at := v.pageOf(t, flagBranch)
	binary.NativeEndian.PutUint64(v.file[at+pageHeader+8:], uint64(at/v.page))
	require.Nil(t, v.open(t, v.file, "a loop"))
}

// Bbolt would write over it.
func TestAPageThatIsUsedAndFreeIsFound(t *testing.T) {
	v := newVictim(t)
	at := v.pageOf(t, flagFreelist)
	require.NotZero(t, binary.NativeEndian.Uint16(v.file[at+10:]))
	binary.NativeEndian.PutUint64(v.file[at+pageHeader:], uint64(v.pageOf(t, flagLeaf)/v.page))
	require.Nil(t, v.open(t, v.file, "used and free"))
}

// Bbolt would go back to the older one, which does not have what was written last.
func TestADamagedMetaPageIsFound(t *testing.T) {
	v := newVictim(t)
	for id := range 2 {
		damaged := bytes.Clone(v.file)
		damaged[id*v.page+pageHeader+48] ^= 1
		require.Nil(t, v.open(t, damaged, "meta page"))
	}
}

// Of a length like this, bbolt would take memory that no machine has.
func TestAListOfFreePagesThatIsTooLongIsFound(t *testing.T) {
	v := newVictim(t)
	at := v.pageOf(t, flagFreelist)
	binary.NativeEndian.PutUint16(v.file[at+10:], 0xFFFF)
	binary.NativeEndian.PutUint64(v.file[at+pageHeader:], 1<<40)
	require.Nil(t, v.open(t, v.file, "too long"))
}

// A bucket of another name would be a log that has lost everything.
func TestABucketOfAnotherNameIsFound(t *testing.T) {
	v := newVictim(t)
	at := bytes.Index(v.file[int(v.newest().root)*v.page:], []byte(logBucket)) + int(v.newest().root)*v.page
	v.file[at+3]++
	require.NoError(t, checkPages(bytes.NewReader(v.file), int64(len(v.file))))
	require.Nil(t, v.open(t, v.file, "another name"))
}

// sealMeta makes the checksum of a meta page right.
func sealMeta(page []byte) {
	sum := fnv.New64a()
	sum.Write(page[pageHeader : pageHeader+metaSize-8])
	binary.NativeEndian.PutUint64(page[pageHeader+metaSize-8:], sum.Sum64())
}

func TestMetaPagesThatPromiseTooMuchAreFound(t *testing.T) {
	v := newVictim(t)
	for name, promise := range map[string]func(page []byte){
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
			promise(page)
			sealMeta(page)
		}
		require.Nil(t, v.open(t, damaged, name), name)
	}
}

func TestTheLockOfADamagedFileIsReleased(t *testing.T) {
	v := newVictim(t)
	for _, at := range []int{pageHeader, v.pageOf(t, flagBranch) + 8, v.pageOf(t, flagFreelist) + 8} {
		damaged := bytes.Clone(v.file)
		damaged[at] ^= 0xff
		require.Nil(t, v.open(t, damaged, "damaged"))
		// It is repaired where it is: the lock is the file's.
		file, err := os.OpenFile(filepath.Join(v.dir, logFile), os.O_RDWR, 0)
		require.NoError(t, err)
		_, err = file.WriteAt(v.file, 0)
		require.NoError(t, err)
		require.NoError(t, file.Close())
		l := open(t, v.dir)
		holds(t, l.Logs(), v.want...)
		require.NoError(t, l.Close())
	}
}

// FuzzPages damages a file, and makes sure that whatever passes can be read to its end.
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
		if checkPages(bytes.NewReader(damaged), int64(len(damaged))) != nil {
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
					sum.Write(v) // touches each byte
					return nil
				})
			})
		}))
	})
}
