// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// The layout of a file of bbolt, version 2: pages of structures as they are in memory. The first two are meta
// pages, which are written in turn. Bbolt trusts the pages that it reads: it never returns from a page that
// leads back to itself, and it panics at a wrong length, in the goroutine that reads it. So this package
// verifies the pages before bbolt reads them.
const (
	pageHeader  = 16
	elementSize = 16
	bucketSize  = 16 // a bucket's root page and sequence
	metaSize    = 64 // with the checksum, which is its last 8 bytes

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	flagBucket   = 1 // of an element of a leaf

	noFreelist = 1<<64 - 1 // in a meta page: the pages that are not used are free

	metaMagic   = 0xED0CDAED
	metaVersion = 2

	minPageSize = 1 << 10
	maxPageSize = 16 << 20
	// maxDepth bounds the depth of a tree. A branch page has at least two elements when bbolt writes it, so no file
	// has a tree that deep.
	maxDepth = 64
)

// A meta is the content of a meta page. It says where the tree of buckets and the list of free pages begin.
type meta struct {
	pageSize       int64
	root, freelist uint64
	end            uint64 // the first page that is not used
	transaction    uint64
}

// A visitor receives the records of a bucket in the order of their keys. at is the offset of the value in the file.
type visitor func(key, value []byte, at int64)

// A checker verifies that the pages of a file are as bbolt writes them: a tree and a list of free pages, unless the
// file was written without the list. The keys of the tree are in order, and its elements fill their pages without a
// gap. It reads each page once, so it ends whatever the pages contain.
type checker struct {
	r        io.ReaderAt
	pageSize int64
	known    []bool                    // the pages that were read
	buckets  func(name string) visitor // returns the visitor of a bucket
	failed   error                     // the first error in a bucket; the other buckets are still visited
	visited  map[string]bool           // the names of the buckets
}

// checkPages verifies a file and visits its records. Even if it returns an error, it visits every record that it
// can reach. It also returns the number of the newest transaction.
//
// It requires both meta pages to be whole, although bbolt needs only one. The damaged one may be the newer one:
// without it the last write, which may be a vote, would be lost silently. A crash damages neither of them, because
// the used bytes of a meta page lie within one sector of a disk.
func checkPages(r io.ReaderAt, size int64, buckets func(name string) visitor) (transaction uint64, err error) {
	m, damage := readMetas(r)
	if m.pageSize == 0 {
		return 0, damage
	}
	if pages := uint64(size / m.pageSize); m.end > pages {
		err := fmt.Errorf("it is cut off: %d bytes of %d pages", size, m.end)
		if damage == nil {
			damage = err
		}
		m.end = pages
	}
	c := &checker{r: r, pageSize: m.pageSize, known: make([]bool, m.end), buckets: buckets, visited: map[string]bool{}}
	if err := c.check(m); damage == nil {
		damage = err
	}
	return m.transaction, damage
}

func (c *checker) check(m meta) error {
	if err := c.tree(m.root, nil, nil, 0, c.root); err != nil {
		return err
	}
	if c.failed != nil {
		return c.failed
	}
	if m.freelist != noFreelist {
		if err := c.free(m.freelist); err != nil {
			return err
		}
		for id := 2; id < len(c.known); id++ {
			if !c.known[id] {
				return fmt.Errorf("page %d is neither used nor free", id)
			}
		}
	}
	for _, name := range []string{bucketLogs, bucketConf} {
		if !c.visited[name] {
			return fmt.Errorf("there is no bucket %q", name)
		}
	}
	return nil
}

// readMetas returns the newer meta page, and an error unless both are whole. If neither is, the result has no page
// size.
func readMetas(r io.ReaderAt) (meta, error) {
	first, err := readMeta(r, 0, 0)
	if err != nil {
		// The second page begins where the first one ends, which is unknown.
		for size := int64(minPageSize); size <= maxPageSize; size *= 2 {
			if second, damage := readMeta(r, size, 1); damage == nil && second.pageSize == size {
				return second, err
			}
		}
		return meta{}, err
	}
	second, err := readMeta(r, first.pageSize, 1)
	if err != nil {
		return first, err
	}
	if second.pageSize != first.pageSize {
		return first, errors.New("the meta pages differ in the size of a page")
	}
	if second.transaction > first.transaction {
		return second, nil
	}
	return first, nil
}

func readMeta(r io.ReaderAt, offset int64, id uint64) (meta, error) {
	damage := fmt.Errorf("meta page %d is damaged", id)
	var b [pageHeader + metaSize]byte
	if _, err := r.ReadAt(b[:], offset); err != nil && !errors.Is(err, io.EOF) {
		return meta{}, err
	} else if err != nil {
		return meta{}, damage
	}
	fields := b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(fields[:metaSize-8])
	number := binary.NativeEndian.Uint64
	size := int64(binary.NativeEndian.Uint32(fields[8:]))
	if number(b[:]) != id || binary.NativeEndian.Uint16(b[8:]) != flagMeta || binary.NativeEndian.Uint32(fields) != metaMagic ||
		binary.NativeEndian.Uint32(fields[4:]) != metaVersion || number(fields[metaSize-8:]) != sum.Sum64() ||
		size < minPageSize || size > maxPageSize || size&(size-1) != 0 {
		return meta{}, damage
	}
	return meta{
		pageSize: size, root: number(fields[16:]), freelist: number(fields[32:]), end: number(fields[40:]),
		transaction: number(fields[48:]),
	}, nil
}

// header reads the header of a page and notes the pages that it spans.
func (c *checker) header(id uint64) (b []byte, pages uint64, err error) {
	end := uint64(len(c.known))
	if id < 2 || id >= end {
		return nil, 0, fmt.Errorf("there is no page %d", id)
	}
	b = make([]byte, c.pageSize)
	if _, err := c.r.ReadAt(b, int64(id)*c.pageSize); err != nil {
		return nil, 0, err
	}
	pages = 1 + uint64(binary.NativeEndian.Uint32(b[12:]))
	if binary.NativeEndian.Uint64(b) != id || pages > end-id {
		return nil, 0, fmt.Errorf("the header of page %d is damaged", id)
	}
	for i := id; i < id+pages; i++ {
		if err := c.note(i); err != nil {
			return nil, 0, err
		}
	}
	return b, pages, nil
}

func (c *checker) note(id uint64) error {
	if id >= uint64(len(c.known)) || c.known[id] {
		return fmt.Errorf("page %d is used twice, or does not exist", id)
	}
	c.known[id] = true
	return nil
}

// An element is a record in a page.
type element func(key, value []byte, at int64, bucket bool) error

// tree verifies a page and those below it. Their keys begin at low, and end before high unless high is nil.
func (c *checker) tree(id uint64, low, high []byte, depth int, visit element) error {
	b, pages, err := c.header(id)
	if err != nil {
		return err
	}
	if pages > 1 {
		whole := make([]byte, min(int64(pages)*c.pageSize, elementsEnd(b)))
		if _, err := c.r.ReadAt(whole, int64(id)*c.pageSize); err != nil {
			return err
		}
		b = whole
	}
	if err := c.elements(b, int64(id)*c.pageSize, low, high, depth, visit); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// elementsEnd returns how many bytes of a page have elements, given its first bytes: the elements end with the last one. A
// damaged number of pages does not change that.
func elementsEnd(b []byte) int64 {
	at := pageHeader + (int64(binary.NativeEndian.Uint16(b[10:]))-1)*elementSize
	if at < pageHeader || at+elementSize > int64(len(b)) {
		return math.MaxInt64 // unknown
	}
	e := b[at:]
	sum := func(from, to int) (n int64) {
		for ; from < to; from += 4 {
			n += int64(binary.NativeEndian.Uint32(e[from:]))
		}
		return n
	}
	if binary.NativeEndian.Uint16(b[8:]) == flagBranch {
		return at + sum(0, 8) // its position and the size of its key
	}
	return at + sum(4, elementSize) // and the size of its value
}

// elements verifies a page that begins at an offset of the file, or a bucket that is stored in a value.
func (c *checker) elements(b []byte, begin int64, low, high []byte, depth int, visit element) error {
	if len(b) < pageHeader {
		return errors.New("it is cut off")
	}
	if depth > maxDepth {
		return errors.New("the tree is too deep")
	}
	flags, count := binary.NativeEndian.Uint16(b[8:]), int(binary.NativeEndian.Uint16(b[10:]))
	next := pageHeader + count*elementSize // where the next key begins
	if flags != flagBranch && flags != flagLeaf || flags == flagBranch && count == 0 || next > len(b) {
		return errors.New("its header is damaged")
	}
	branch := flags == flagBranch
	var children []child
	for i := range count {
		at := pageHeader + i*elementSize
		e := b[at:]
		pos, key, value := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]), uint32(0)
		if !branch {
			pos, key, value = key, binary.NativeEndian.Uint32(e[8:]), binary.NativeEndian.Uint32(e[12:])
		}
		if uint64(at)+uint64(pos) != uint64(next) || key == 0 || uint64(key)+uint64(value) > uint64(len(b)-next) {
			return fmt.Errorf("element %d is damaged", i)
		}
		k := b[next : next+int(key)]
		if cmp := bytes.Compare(k, low); cmp < 0 || cmp == 0 && i > 0 || high != nil && bytes.Compare(k, high) >= 0 {
			return fmt.Errorf("key %d is out of order", i)
		}
		low = k
		next += int(key) + int(value)
		if branch {
			children = append(children, child{binary.NativeEndian.Uint64(e[8:]), k})
			continue
		}
		kind := binary.NativeEndian.Uint32(e)
		if kind > flagBucket {
			return fmt.Errorf("element %d is damaged", i)
		}
		v := b[next-int(value) : next]
		if err := visit(k, v, begin+int64(next)-int64(value), kind == flagBucket); err != nil {
			return err
		}
	}
	return c.children(children, high, depth, visit)
}

// A child is an element of a branch page: a page, and the first of its keys.
type child struct {
	page uint64
	key  []byte
}

func (c *checker) children(children []child, high []byte, depth int, visit element) error {
	for i, child := range children {
		end := high
		if i+1 < len(children) {
			end = children[i+1].key
		}
		if err := c.tree(child.page, child.key, end, depth+1, visit); err != nil {
			return err
		}
	}
	return nil
}

// root visits an element of the root: a bucket. An error in one bucket does not keep the others from being visited.
func (c *checker) root(key, value []byte, at int64, bucket bool) error {
	name := string(key)
	if !bucket {
		return fmt.Errorf("the record %q is in no bucket", name)
	}
	c.visited[name] = true
	if err := c.bucket(value, at, c.buckets(name)); err != nil && c.failed == nil {
		c.failed = fmt.Errorf("bucket %q: %w", name, err)
	}
	return nil
}

// bucket verifies a bucket, which has pages of its own or, if it is small, is stored in its value.
func (c *checker) bucket(value []byte, at int64, visit visitor) error {
	if len(value) < bucketSize {
		return errors.New("it is cut off")
	}
	record := func(key, value []byte, at int64, bucket bool) error {
		if bucket {
			return fmt.Errorf("it has a bucket %q", key)
		}
		visit(key, value, at)
		return nil
	}
	root := binary.NativeEndian.Uint64(value)
	if root == 0 {
		return c.elements(value[bucketSize:], at+bucketSize, nil, nil, 1, record)
	}
	if len(value) != bucketSize {
		return errors.New("its value is damaged")
	}
	return c.tree(root, nil, nil, 1, record)
}

// free verifies the list of free pages, which must not be in use.
func (c *checker) free(id uint64) error {
	b, pages, err := c.header(id)
	if err != nil {
		return err
	}
	if binary.NativeEndian.Uint16(b[8:]) != flagFreelist {
		return errors.New("the list of free pages is damaged")
	}
	count, from := uint64(binary.NativeEndian.Uint16(b[10:])), int64(pageHeader)
	if count == 0xFFFF { // the number did not fit
		count, from = binary.NativeEndian.Uint64(b[pageHeader:]), pageHeader+8
	}
	if count > uint64(int64(pages)*c.pageSize-from)/8 {
		return errors.New("the list of free pages is damaged")
	}
	ids := make([]byte, count*8)
	if _, err := c.r.ReadAt(ids, int64(id)*c.pageSize+from); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for ; len(ids) > 0; ids = ids[8:] {
		if id := binary.NativeEndian.Uint64(ids); id < 2 {
			return errors.New("a meta page is listed as free")
		} else if err := c.note(id); err != nil {
			return err
		}
	}
	return nil
}
