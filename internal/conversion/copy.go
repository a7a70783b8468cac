// SPDX-License-Identifier: Apache-2.0

package conversion

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
)

// The size of a batch of entries, which one write makes durable.
const (
	batchBytes   = 1 << 20
	batchEntries = 4096
)

// copyData copies the log and the records to an empty store.
func (c *Conversion) copyData(store storage.Store, old storage.Reading) error {
	loaded, err := store.Load()
	if err != nil {
		return err
	}
	if loaded.Last > 0 {
		return fmt.Errorf("the new log has entries already, from %d to %d", loaded.First, loaded.Last)
	}
	if err := c.copyEntries(store, old); err != nil {
		return err
	}
	store.Extend(c.Reached)
	// The vote is first: its file is older than the identity, which is the last file that a new directory gets.
	if err := copyRecord(store.Vote(), old.Vote); err != nil {
		return err
	}
	if err := copyRecord(store.Identity(), old.Identity); err != nil {
		return err
	}
	store.Sync()
	return nil
}

func copyRecord(record storage.Record, old func() ([]byte, error)) error {
	b, err := old()
	if b == nil || err != nil {
		return err
	}
	return record.Save(b)
}

// copyEntries copies the entries in batches, and the applied index with the last one.
func (c *Conversion) copyEntries(store storage.Store, old storage.Reading) error {
	is := old.Loaded()
	var batch []*raft.Log
	size := 0
	write := func(applied uint64) error {
		var changes []storage.Change
		if len(batch) > 0 {
			changes = []storage.Change{{Kind: storage.Append, Entries: batch}}
		}
		batch, size = nil, 0
		_, err := store.Write(changes, applied)
		return err
	}
	for index := is.First; index > 0 && index <= is.Last; index++ {
		l, err := old.Entry(index)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		batch, size = append(batch, l), size+len(l.Data)+len(l.Extensions)
		if size >= batchBytes || len(batch) >= batchEntries {
			if err := c.Broken(); err != nil {
				return err
			}
			if err := write(0); err != nil {
				return err
			}
		}
	}
	if len(batch) == 0 && is.Applied == 0 {
		return nil
	}
	return write(is.Applied)
}
