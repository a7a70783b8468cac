// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The format of bbolt's file, version 2: pages of structures as they are in memory. The first two
// are meta pages, written in turn. Bbolt believes what it reads: where a page leads back to itself
// it never ends, and where a length is wrong it panics in whatever goroutine meets that. So the
// file is looked at before.
const (
	pageHeader  = 16
	elementSize = 16
	bucketSize  = 16 // a bucket's root page and sequence
	metaSize    = 64 // with its checksum, which is the last 8 of them

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	flagBucket   = 1 // of an element of a leaf

	metaMagic   = 0xED0CDAED
	metaVersion = 2
)

// A meta page says where the tree of buckets and the list of free pages begin.
type meta struct {
	pageSize       int64
	root, freelist uint64
	end            uint64 // the first page that is not used
	transaction    uint64
}

// A checker verifies that the pages of a file are what bbolt writes: a tree whose keys are in order
// and whose elements fill their pages without a gap, a list of free pages, and no page left over.
type checker struct {
	r        io.ReaderAt
	pageSize int64
	known    []bool // the pages that were met
}

// checkPages verifies a file of this size.
//
// Both meta pages have to be whole, though bbolt does with one. The damaged one may be the newer,
// and without it the last write, a vote perhaps, would be lost in silence. A crash leaves none
// damaged: what is used of a page lies within one sector of a disk.
func checkPages(r io.ReaderAt, size int64) error {
	first, err := readMeta(r, 0, 0)
	if err != nil {
		return err
	}
	m, err := readMeta(r, first.pageSize, 1)
	if err != nil {
		return err
	}
	if m.pageSize != first.pageSize {
		return errors.New("the meta pages differ in the size of pages")
	}
	if first.transaction > m.transaction {
		m = first
	}
	if m.end > uint64(size/m.pageSize) {
		return fmt.Errorf("it is cut off: %d bytes of %d pages", size, m.end)
	}
	c := &checker{r: r, pageSize: m.pageSize, known: make([]bool, m.end)}
	if err := c.tree(m.root, nil, nil); err != nil {
		return err
	}
	if err := c.free(m.freelist); err != nil {
		return err
	}
	for id := 2; id < len(c.known); id++ {
		if !c.known[id] {
			return fmt.Errorf("page %d is neither used nor free", id)
		}
	}
	return nil
}

func readMeta(r io.ReaderAt, offset int64, id uint64) (meta, error) {
	bad := fmt.Errorf("meta page %d is damaged", id)
	var b [pageHeader + metaSize]byte
	if _, err := r.ReadAt(b[:], offset); err != nil {
		return meta{}, errors.Join(bad, err)
	}
	m := b[pageHeader:]
	sum := fnv.New64a()
	sum.Write(m[:metaSize-8])
	number := binary.NativeEndian.Uint64
	if number(b[:]) != id || binary.NativeEndian.Uint16(b[8:]) != flagMeta || binary.NativeEndian.Uint32(m) != metaMagic ||
		binary.NativeEndian.Uint32(m[4:]) != metaVersion || binary.NativeEndian.Uint32(m[8:]) < pageHeader+metaSize ||
		number(m[metaSize-8:]) != sum.Sum64() {
		return meta{}, bad
	}
	return meta{
		pageSize: int64(binary.NativeEndian.Uint32(m[8:])),
		root:     number(m[16:]), freelist: number(m[32:]), end: number(m[40:]), transaction: number(m[48:]),
	}, nil
}

// page reads a page, with those that it flows over to.
func (c *checker) page(id uint64) ([]byte, error) {
	end := uint64(len(c.known))
	if id < 2 || id >= end {
		return nil, fmt.Errorf("there is no page %d", id)
	}
	var header [pageHeader]byte
	if _, err := c.r.ReadAt(header[:], int64(id)*c.pageSize); err != nil {
		return nil, err
	}
	n := 1 + uint64(binary.NativeEndian.Uint32(header[12:]))
	if binary.NativeEndian.Uint64(header[:]) != id || n > end-id {
		return nil, fmt.Errorf("the header of page %d is damaged", id)
	}
	for i := id; i < id+n; i++ {
		if err := c.meet(i); err != nil {
			return nil, err
		}
	}
	b := make([]byte, int64(n)*c.pageSize)
	_, err := c.r.ReadAt(b, int64(id)*c.pageSize)
	return b, err
}

func (c *checker) meet(id uint64) error {
	if id >= uint64(len(c.known)) || c.known[id] {
		return fmt.Errorf("page %d is used twice, or there is none", id)
	}
	c.known[id] = true
	return nil
}

// tree verifies a page and those below it. Their keys begin at low, and end before high unless that
// is nil.
func (c *checker) tree(id uint64, low, high []byte) error {
	b, err := c.page(id)
	if err != nil {
		return err
	}
	if err := c.elements(b, low, high); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (c *checker) elements(b []byte, low, high []byte) error {
	if len(b) < pageHeader {
		return errors.New("it is cut off")
	}
	flags, count := binary.NativeEndian.Uint16(b[8:]), int(binary.NativeEndian.Uint16(b[10:]))
	next := pageHeader + count*elementSize // where the next key begins
	if flags != flagBranch && flags != flagLeaf || flags == flagBranch && count == 0 || next > len(b) {
		return errors.New("its header is damaged")
	}
	var children []uint64
	var keys [][]byte
	for i := range count {
		at := pageHeader + i*elementSize
		e := b[at:]
		pos, key, value := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:]), uint32(0)
		if flags == flagLeaf {
			pos, key, value = binary.NativeEndian.Uint32(e[4:]), binary.NativeEndian.Uint32(e[8:]), binary.NativeEndian.Uint32(e[12:])
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
		if flags == flagBranch {
			children, keys = append(children, binary.NativeEndian.Uint64(e[8:])), append(keys, k)
			continue
		}
		switch binary.NativeEndian.Uint32(e) {
		case 0:
		case flagBucket:
			if err := c.bucket(b[next-int(value) : next]); err != nil {
				return err
			}
		default:
			return fmt.Errorf("element %d is damaged", i)
		}
	}
	for i, child := range children {
		end := high
		if i+1 < len(keys) {
			end = keys[i+1]
		}
		if err := c.tree(child, keys[i], end); err != nil {
			return err
		}
	}
	return nil
}

// bucket verifies a bucket, which has pages of its own or, if it is small, lies within its value.
func (c *checker) bucket(value []byte) error {
	if len(value) < bucketSize {
		return errors.New("a bucket is cut off")
	}
	root := binary.NativeEndian.Uint64(value)
	if root == 0 {
		return c.elements(value[bucketSize:], nil, nil)
	}
	if len(value) != bucketSize {
		return errors.New("a bucket is damaged")
	}
	return c.tree(root, nil, nil)
}

// free verifies the list of free pages, none of which the tree may use.
func (c *checker) free(id uint64) error {
	b, err := c.page(id)
	if err != nil {
		return err
	}
	ids, count := b[pageHeader:], uint64(binary.NativeEndian.Uint16(b[10:]))
	if count == 0xFFFF { // it did not suffice
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if binary.NativeEndian.Uint16(b[8:]) != flagFreelist || count > uint64(len(ids)/8) {
		return errors.New("the list of free pages is damaged")
	}
	for ; count > 0; count, ids = count-1, ids[8:] {
		if id := binary.NativeEndian.Uint64(ids); id < 2 {
			return errors.New("a meta page is said to be free")
		} else if err := c.meet(id); err != nil {
			return err
		}
	}
	return nil
}
