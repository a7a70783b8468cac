// SPDX-License-Identifier: Apache-2.0

package conversion

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// compare returns an error if the data of a format in a directory differs from the old data.
func (c *Conversion) compare(format storage.Format, files vfs.FS, dir string, old storage.Reading) (err error) {
	var damage []error
	is, err := format.Read(vfs.ReadOnly(files), dir, func(file string, err error) { damage = append(damage, fmt.Errorf("%s: %w", file, err)) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, is.Close()) }()
	if len(damage) > 0 {
		return fmt.Errorf("the copy as %s cannot be read: %w", format.Name(), errors.Join(damage...))
	}
	return c.difference(is, old, format.Name())
}

// difference returns an error if two logs, votes or identities differ.
func (c *Conversion) difference(is, old storage.Reading, name string) error {
	was, now := old.Loaded(), is.Loaded()
	if was.First != now.First || was.Last != now.Last || was.Applied != now.Applied {
		return fmt.Errorf("the copy as %s has entries from %d to %d and applied %d, instead of %d to %d and %d",
			name, now.First, now.Last, now.Applied, was.First, was.Last, was.Applied)
	}
	for index := was.First; index > 0 && index <= was.Last; index++ {
		if index%1024 == 0 {
			if err := c.Broken(); err != nil {
				return err
			}
		}
		l, err := old.Entry(index)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		copied, err := is.Entry(index)
		if err != nil {
			return fmt.Errorf("entry %d of the copy as %s: %w", index, name, err)
		}
		if !equal(l, copied) {
			return fmt.Errorf("entry %d differs in the copy as %s", index, name)
		}
	}
	for record, load := range map[string]func(storage.Reading) ([]byte, error){
		"vote": storage.Reading.Vote, "identity": storage.Reading.Identity,
	} {
		b, err := load(old)
		copied, copyErr := load(is)
		if err := errors.Join(err, copyErr); err != nil {
			return err
		}
		if (b == nil) != (copied == nil) || !bytes.Equal(b, copied) {
			return fmt.Errorf("the %s differs in the copy as %s", record, name)
		}
	}
	return nil
}

func equal(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && a.AppendedAt.Equal(b.AppendedAt) &&
		bytes.Equal(a.Data, b.Data) && bytes.Equal(a.Extensions, b.Extensions)
}
