// SPDX-License-Identifier: Apache-2.0

package etcdsnapshot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// A database reads the pages of a file of bbolt. bbolt itself maps the file into memory and trusts its pages, so a
// damaged file can end the process. A database checks each number before it uses it, and returns an error instead.
type database struct {
	r        io.ReaderAt
	pageSize int64
	pages    uint64          // the pages below this number are in use
	seen     map[uint64]bool // the pages that were read, so that no cycle is followed
	root     uint64
}

// bbolt's format: https://github.com/etcd-io/bbolt/tree/main/internal/common. Numbers have the byte order of the machine
// that wrote the file. This package reads little-endian files, like bbolt on a little-endian machine.
const (
	pageHeader  = 16
	elementSize = 16
	metaSize    = 64
	metaMagic   = 0xED0CDAED
	metaVersion = 2

	branchPage = 0x01
	leafPage   = 0x02
	bucketLeaf = 0x01

	maxDepth = 64
	// maxPage bounds the size of a page with its overflow. A value of etcd has at most a few MiB.
	maxPage = 1 << 30
)

var errNoDatabase = errors.New("it is not a database of bbolt: neither meta page is valid")

// openDatabase reads the meta pages of a file of a size.
func openDatabase(r io.ReaderAt, size int64) (*database, error) {
	var newest *database
	var newestTx uint64
	// The second meta page is one page after the first. Only the first one says how large a page is, and it may be
	// damaged.
	try := func(at, pageSize int64) int64 {
		b := make([]byte, pageHeader+metaSize)
		if _, err := r.ReadAt(b, at); err != nil {
			return 0
		}
		meta := b[pageHeader:]
		sum := fnv.New64a()
		sum.Write(meta[:metaSize-8])
		if u32(meta) != metaMagic || u32(meta[4:]) != metaVersion || u64(meta[metaSize-8:]) != sum.Sum64() {
			return 0
		}
		own := int64(u32(meta[8:]))
		if own < 512 || own > 1<<20 || pageSize > 0 && own != pageSize {
			return 0
		}
		if tx := u64(meta[48:]); newest == nil || tx > newestTx {
			newest, newestTx = &database{r: r, pageSize: own, root: u64(meta[16:]), pages: u64(meta[40:]), seen: map[uint64]bool{}}, tx
		}
		return own
	}
	if own := try(0, 0); own > 0 {
		try(own, own)
	} else {
		for pageSize := int64(512); pageSize <= 1<<17; pageSize *= 2 {
			try(pageSize, pageSize)
		}
	}
	if newest == nil {
		return nil, errNoDatabase
	}
	if newest.pages > uint64(size/newest.pageSize) {
		return nil, fmt.Errorf("it is cut off: it has %d bytes, and should have %d pages of %d", size, newest.pages, newest.pageSize)
	}
	return newest, nil
}

func u32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }
func u64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// buckets calls fn for each bucket.
func (d *database) buckets(fn func(name string, b bucket) error) error {
	return d.walk(d.root, nil, 0, new([]byte), func(key, value []byte, isBucket bool) error {
		if !isBucket || len(value) < 16 {
			return fmt.Errorf("%q is not a bucket", key)
		}
		return fn(string(key), bucket{d, u64(value), value[16:]})
	})
}

// forget lets each page be read once more.
func (d *database) forget() { clear(d.seen) }

// A bucket is a bucket of a database. It has a page of its own if root is not 0, otherwise it is inline.
type bucket struct {
	d      *database
	root   uint64
	inline []byte
}

// entries calls fn for each key of the bucket, in order. The slices are valid during the call.
func (b bucket) entries(fn func(key, value []byte) error) error {
	return b.d.walk(b.root, b.inline, 0, new([]byte), func(key, value []byte, isBucket bool) error {
		if isBucket {
			return fmt.Errorf("%q is a bucket in a bucket", key)
		}
		return fn(key, value)
	})
}

// walk calls fn for each key below a page, in order. last is the key before.
func (d *database) walk(id uint64, inline []byte, depth int, last *[]byte, fn func(key, value []byte, isBucket bool) error) error {
	if depth > maxDepth {
		return errors.New("its pages nest too deeply")
	}
	page := inline
	if id != 0 {
		var err error
		if page, err = d.page(id); err != nil {
			return err
		}
	}
	if len(page) < pageHeader {
		return fmt.Errorf("page %d is cut off", id)
	}
	flags, count := binary.LittleEndian.Uint16(page[8:]), int(binary.LittleEndian.Uint16(page[10:]))
	if flags != leafPage && (flags != branchPage || id == 0) || pageHeader+count*elementSize > len(page) {
		return fmt.Errorf("page %d is damaged: flags %x, %d elements", id, flags, count)
	}
	for i := range count {
		at := pageHeader + i*elementSize
		e := page[at : at+elementSize]
		if flags == branchPage {
			if _, ok := slice(page, at, u32(e), u32(e[4:])); !ok {
				return fmt.Errorf("page %d is damaged at element %d", id, i)
			}
			if err := d.walk(u64(e[8:]), nil, depth+1, last, fn); err != nil {
				return err
			}
			continue
		}
		key, ok := slice(page, at, u32(e[4:]), u32(e[8:]))
		value, whole := slice(page, at, u32(e[4:]), u32(e[8:]), u32(e[12:]))
		if !ok || !whole || len(key) == 0 || bytes.Compare(key, *last) <= 0 {
			return fmt.Errorf("page %d is damaged at element %d", id, i)
		}
		*last = append((*last)[:0], key...)
		if err := fn(key, value, u32(e)&bucketLeaf != 0); err != nil {
			return err
		}
	}
	return nil
}

// slice returns the last of consecutive parts of a page, which begin at an offset of an element.
func slice(page []byte, element int, offset uint32, sizes ...uint32) ([]byte, bool) {
	begin, end := uint64(element)+uint64(offset), uint64(element)+uint64(offset)
	for _, size := range sizes {
		begin, end = end, end+uint64(size)
	}
	if end > uint64(len(page)) {
		return nil, false
	}
	return page[begin:end], true
}

// page reads a page with its overflow.
func (d *database) page(id uint64) ([]byte, error) {
	if id < 2 || id >= d.pages || d.seen[id] {
		return nil, fmt.Errorf("page %d is out of range, or used twice", id)
	}
	d.seen[id] = true
	header := make([]byte, pageHeader)
	at := int64(id) * d.pageSize
	if _, err := d.r.ReadAt(header, at); err != nil {
		return nil, err
	}
	overflow := uint64(u32(header[12:]))
	size := int64(overflow+1) * d.pageSize
	if u64(header) != id || id+overflow >= d.pages || size > maxPage {
		return nil, fmt.Errorf("page %d is damaged: number %d, %d overflow pages", id, u64(header), overflow)
	}
	page := make([]byte, size)
	if _, err := d.r.ReadAt(page, at); err != nil {
		return nil, err
	}
	return page, nil
}
