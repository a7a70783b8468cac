// SPDX-License-Identifier: Apache-2.0

package boltlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/coterie-kv/coterie/internal/slot"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// noteFile is the name of the file with the note.
const noteFile = "log.extent"

// A reached says how far a log reached: bbolt's newest transaction and the extent at that time. Bbolt numbers its
// transactions, so a file with an older newest one has lost something, even if each of its pages is whole.
type reached struct {
	transaction uint64
	extent      storage.Extent
}

// lost returns an error if a file lacks transactions that it had.
func (r reached) lost(transaction uint64) error {
	if transaction >= r.transaction {
		return nil
	}
	return fmt.Errorf("its newest transaction is %d; it had reached transaction %d, with entry %d of term %d, by %s",
		transaction, r.transaction, r.extent.Index, r.extent.Term, noteFile)
}

// missing returns an error if the missing file once existed.
func (r reached) missing() error {
	if r.transaction == 0 {
		return nil
	}
	return fmt.Errorf("it is missing; it had reached transaction %d, with entry %d of term %d, by %s",
		r.transaction, r.extent.Index, r.extent.Term, noteFile)
}

// A note keeps the newest reached in a file of two slots. It is written after each batch and not synced, so it survives
// a killed process, and a power failure as far as the system has written it. Each saved vote makes it durable. mu guards
// everything.
type note struct {
	mu      sync.Mutex
	file    vfs.File
	serial  uint64
	reached reached
	dirty   bool // the last write was not synced
}

// readNote returns the newest note of a directory, and its serial number.
func readNote(fsys vfs.FS, dir string) (r reached, serial uint64, err error) {
	file, err := fsys.Open(filepath.Join(dir, noteFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, 0, nil
	}
	if err != nil {
		return r, 0, err
	}
	defer file.Close()
	return slot.Newest(file, 0, decodeNote)
}

func decodeNote(b []byte) (serial uint64, found reached, ok bool) {
	record, ok := slot.Open(b)
	if !ok {
		return 0, found, false
	}
	r := wire.NewReader(record)
	for r.Next() {
		switch r.Field() {
		case 1:
			serial = r.Uint()
		case 2:
			found.transaction = r.Uint()
		case 3:
			found.extent.Index = r.Uint()
		case 4:
			found.extent.Term = r.Uint()
		case 5:
			found.extent.Snapshot = r.Uint()
		}
	}
	return serial, found, r.Err() == nil && serial > 0
}

func encodeNote(serial uint64, r reached) []byte {
	b := make([]byte, slot.Header, 64)
	b = wire.Uint(b, 1, serial)
	b = wire.Uint(b, 2, r.transaction)
	b = wire.Uint(b, 3, r.extent.Index)
	b = wire.Uint(b, 4, r.extent.Term)
	b = wire.Uint(b, 5, r.extent.Snapshot)
	return slot.Seal(b)
}

// openNote opens the file of the note, and makes it if it is missing.
func openNote(fsys vfs.FS, dir string, r reached, serial uint64) (*note, error) {
	name := filepath.Join(dir, noteFile)
	n := &note{serial: serial, reached: r}
	var err error
	if n.file, err = fsys.Open(name); err == nil {
		return n, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if n.file, err = fsys.Create(name); err != nil {
		return nil, err
	}
	if err = n.file.Allocate(slot.Count * slot.Size); err == nil {
		err = errors.Join(n.file.Sync(), fsys.SyncDir(dir))
	}
	if err != nil {
		return nil, errors.Join(err, n.file.Close())
	}
	return n, nil
}

// write writes a note about durable data. If it fails, less is known about the log and nothing is wrong: a failed disk
// shows when the log is written. The caller holds mu.
func (n *note) write(r reached) {
	n.reached = r
	n.serial++
	_, err := n.file.WriteAt(encodeNote(n.serial, r), int64(n.serial%slot.Count)*slot.Size)
	n.dirty = n.dirty || err == nil
}

// extend notes an extent. The transaction may be older than that of a vote, which advance has noted meanwhile.
func (n *note) extend(r reached) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r.transaction = max(r.transaction, n.reached.transaction)
	n.write(r)
}

// advance notes a transaction that changed no entry, and makes the note durable.
func (n *note) advance(transaction uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if transaction > n.reached.transaction {
		n.write(reached{transaction, n.reached.extent})
	}
	n.sync()
}

// sync makes the newest note durable. The caller holds mu.
func (n *note) sync() {
	if n.dirty {
		_ = n.file.Sync() // see write
		n.dirty = false
	}
}
