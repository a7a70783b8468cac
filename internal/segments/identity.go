// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// An identity is the record of the identity, in a file of its own. A new record is a new file, which replaces the old
// one when it is durable.
type identity struct {
	fs  vfs.FS
	dir string
}

const (
	identityMagic  = 8                 // bytes of the magic, the version and a zero
	identityHeader = identityMagic + 4 // and the CRC-32C of the rest
)

var identityFormat = wire.Format{What: "identity", Magic: "COTDIR", Version: 1}

func (i *identity) name() string { return filepath.Join(i.dir, identityFile) }

// Load implements storage.Record.
func (i *identity) Load() ([]byte, error) {
	file, err := i.fs.Open(i.name())
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(size, identityHeader+storage.MaxRecord))
	if _, err := file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	err = identityFormat.Check(b)
	if errors.Is(err, wire.ErrFormat) {
		return nil, storage.Damaged(i.name(), err)
	}
	if err != nil || len(b) < identityHeader || b[identityMagic-1] != 0 ||
		crc32.Checksum(b[identityHeader:], castagnoli) != binary.LittleEndian.Uint32(b[identityMagic:]) {
		return nil, &storage.CorruptError{File: i.name(), Err: errors.New("it is not whole")}
	}
	return b[identityHeader:], nil
}

// Save implements storage.Record.
func (i *identity) Save(record []byte) error {
	part := i.name() + partSuffix
	file, err := i.fs.Create(part)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(encodeIdentity(record), 0)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := i.fs.Rename(part, i.name()); err != nil {
		return err
	}
	if err := i.fs.SyncDir(i.dir); err != nil {
		return fmt.Errorf("making %s durable: %w", i.name(), err)
	}
	return nil
}

func encodeIdentity(record []byte) []byte {
	b := append(identityFormat.Append(nil, identityHeader), record...)
	binary.LittleEndian.PutUint32(b[identityMagic:], crc32.Checksum(record, castagnoli))
	return b
}
