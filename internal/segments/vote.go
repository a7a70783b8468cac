// SPDX-License-Identifier: Apache-2.0

package segments

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/coterie-kv/coterie/internal/slot"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A vote is the record of the vote, in two slots of a file. When one is durable, the other gets a copy in the
// background: if a slot is damaged later, the newest record is still there. A serial number in field 1 says which
// record is the newest.
type vote struct {
	fs     vfs.FS
	dir    string
	file   vfs.File // the writer of the log writes the slots of the extent
	serial uint64   // of the newest record; 0 if there is none
}

// The vote file has two slots for the vote and two for the extent. The slots of a record are written in turn, so that
// one of them is always whole.
const (
	extentsAt    = slot.Count * slot.Size // where the slots of the extent begin
	voteFileSize = 2 * slot.Count * slot.Size
)

// voteVersion is the version of the record. Records of later versions name theirs in field 15. The frame of the
// record and that field never change.
const voteVersion = 1

var errVoteMissing = errors.New("it is missing, and the identity is not")

func (v *vote) name() string { return filepath.Join(v.dir, voteFile) }

// open opens the file. It makes the file if the directory has no identity yet: the vote file is made first.
func (v *vote) open(id *identity) (err error) {
	if v.file, err = v.fs.Open(v.name()); !missing(err) {
		return err
	}
	b, err := id.Load()
	if err != nil {
		return err
	}
	if b != nil {
		return &storage.CorruptError{File: v.name(), Err: errVoteMissing}
	}
	if v.file, err = v.fs.Create(v.name()); err != nil {
		return err
	}
	if err = v.file.Allocate(voteFileSize); err == nil {
		err = errors.Join(v.file.Sync(), v.fs.SyncDir(v.dir))
	}
	return err
}

func (v *vote) close() error {
	if v.file == nil {
		return nil
	}
	return v.file.Close()
}

// Load implements storage.Record. It repairs a damaged slot.
func (v *vote) Load() ([]byte, error) {
	record, slots, err := v.read()
	if err != nil {
		return nil, err
	}
	// A file of an earlier version has no extents. The log is whole even without space for them.
	if err := v.file.Allocate(voteFileSize); err != nil && !vfs.Short(err) {
		return nil, err
	}
	if v.serial == 0 {
		return nil, nil
	}
	return record, v.mend(record, slots)
}

// read reads the newest record, and changes nothing on the disk. It also returns the bytes of both slots.
func (v *vote) read() (record, slots []byte, err error) {
	slots = make([]byte, slot.Count*slot.Size)
	if _, err := v.file.ReadAt(slots, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	v.serial = 0
	for i := range slot.Count {
		serial, version, found, ok := decodeVote(slots[i*slot.Size : (i+1)*slot.Size])
		if !ok {
			continue
		}
		if err := wire.CheckVersion("vote", version, voteVersion); err != nil {
			return nil, nil, storage.Damaged(v.name(), err)
		}
		if serial > v.serial {
			v.serial, record = serial, found
		}
	}
	// The first record goes to the second slot, where a crash may have torn it.
	if v.serial == 0 && !blank(slots[:slot.Size]) {
		return nil, nil, &storage.CorruptError{File: v.name(), Err: errors.New("neither record of the vote is whole")}
	}
	return record, slots, nil
}

// mend writes the newest record to both slots. If the previous process was killed, the record may not be durable
// yet, so mend syncs it before it writes the other slot.
func (v *vote) mend(record, slots []byte) error {
	if err := v.file.Sync(); err != nil {
		return err
	}
	b := encodeVote(v.serial, record)
	for at := int64(0); at < slot.Count*slot.Size; at += slot.Size {
		if bytes.HasPrefix(slots[at:], b) {
			continue
		}
		if _, err := v.file.WriteAt(b, at); err != nil {
			return err
		}
		return v.file.Sync()
	}
	return nil
}

// Save implements storage.Record. The sync makes the newest extent durable as well.
func (v *vote) Save(record []byte) error {
	b := encodeVote(v.serial+1, record)
	if len(b) > slot.Size {
		return fmt.Errorf("segments: a vote of %d bytes is too large", len(record))
	}
	if _, err := v.file.WriteAt(b, v.next()); err != nil {
		return err
	}
	if err := v.file.Sync(); err != nil {
		return err
	}
	v.serial++
	// The copy in the other slot need not be durable: the next record overwrites it, and only then is this slot
	// written again. If the write fails, there is only one record, which suffices until it is damaged.
	_, _ = v.file.WriteAt(b, v.next())
	return nil
}

// next returns where the next record goes.
func (v *vote) next() int64 { return int64((v.serial+1)%slot.Count) * slot.Size }

// decodeVote returns the record in a slot, without its serial number.
func decodeVote(b []byte) (serial, version uint64, record []byte, ok bool) {
	record, ok = slot.Open(b)
	if !ok {
		return 0, 0, nil, false
	}
	version = voteVersion
	r := wire.NewReader(record)
	for r.Next() {
		switch r.Field() {
		case 1:
			serial = r.Uint()
		case 15:
			version = r.Uint()
		}
	}
	return serial, version, bytes.TrimPrefix(record, wire.Uint(nil, 1, serial)), r.Err() == nil && serial > 0
}

func encodeVote(serial uint64, record []byte) []byte {
	b := make([]byte, slot.Header, 256)
	b = wire.Uint(b, 1, serial)
	return slot.Seal(append(b, record...))
}
