// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// The keys of the records in bucket "conf".
const (
	keyVote     = "coterie.vote"
	keyIdentity = "coterie.identity"
	keyState    = "coterie.state"
)

// A place is where an entry is in the file.
type place struct {
	at   int64
	size int32
}

// contents are the records of a file that checkPages finds: everything in bucket "conf", and the entries up to the
// first damage.
type contents struct {
	transaction uint64 // the newest one
	records     map[string][]byte
	state       state
	first       uint64 // the index of entries[0]
	entries     []place
	applied     uint64 // the newest applied index
	decoder     decoder
	damage      error // in the records and entries; the pages may have more
}

// readContents verifies the pages of a file and reads its records. With an error, it returns the contents that it
// could read.
func readContents(r io.ReaderAt, size int64) (*contents, error) {
	c := &contents{records: map[string][]byte{}, decoder: newDecoder()}
	var err error
	c.transaction, err = checkPages(r, size, func(name string) visitor {
		switch name {
		case bucketConf: // it is visited first
			return c.record
		case bucketLogs:
			c.readState()
			return c.entry
		}
		return func([]byte, []byte, int64) {}
	})
	// Damage to an entry says more than damage to its page, which often follows from it.
	if c.damage != nil {
		err = c.damage
	}
	return c, err
}

func (c *contents) record(key, value []byte, _ int64) { c.records[string(key)] = bytes.Clone(value) }

func (c *contents) readState() {
	b, err := openRecord(keyState, c.records[keyState])
	if err == nil {
		c.state, err = decodeState(b)
	}
	c.applied, c.damage = c.state.applied, err
}

func (c *contents) entry(key, value []byte, at int64) {
	if c.damage != nil {
		return
	}
	if len(key) != 8 {
		c.damage = fmt.Errorf("bucket %q has the key %x, which is not an index", bucketLogs, key)
		return
	}
	index := binary.BigEndian.Uint64(key)
	if c.state.removed(index) {
		return
	}
	if next := c.last() + 1; len(c.entries) > 0 && index != next {
		c.damage = fmt.Errorf("entry %d follows entry %d", index, next-1)
		return
	}
	_, applied, err := c.decoder.decode(index, value)
	if err != nil {
		c.damage = err
		return
	}
	if len(c.entries) == 0 {
		c.first = index
	}
	c.entries = append(c.entries, place{at, int32(len(value))})
	c.applied = max(c.applied, applied)
}

// last returns the index of the last entry, or 0.
func (c *contents) last() uint64 {
	if len(c.entries) == 0 {
		return 0
	}
	return c.first + uint64(len(c.entries)) - 1
}

// loaded describes the log.
func (c *contents) loaded(reached storage.Extent) storage.Loaded {
	return storage.Loaded{First: c.first, Last: c.last(), Applied: c.applied, Reached: reached}
}

// damaged returns an error of this package or of bbolt with the name of the file, as storage.Damaged does. Errors that
// name the file already, and shortages, stay as they are.
func damaged(name string, err error) error {
	if err == nil || vfs.Short(err) || errors.As(err, new(*storage.CorruptError)) || errors.As(err, new(*vfs.SyncError)) {
		return err
	}
	return storage.Damaged(name, err)
}
