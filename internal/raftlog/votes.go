// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A votes is a raft.StableStore: the term, the last vote's term, and its candidate. All three are one
// record and written at once. Raft itself writes a vote in two steps, and a crash between them would
// leave the new term with the old candidate. There are two slots, written in turn, so that one is always
// whole. When one is durable the other gets a copy in the background: if a slot is damaged later, the
// newest record is still there. Only raft's main loop may write.
type votes struct {
	file   vfs.File
	serial uint64     // of the last record
	mu     sync.Mutex // held while vote is replaced, and while other goroutines read it
	vote
	pending uint64                        // term of a vote; Set follows with its candidate
	must    func(write func() error) bool // runs a write; false if it failed
}

type vote struct {
	term      uint64
	votedIn   uint64
	candidate []byte
}

const (
	voteFile  = "vote"
	slotSize  = 4 << 10 // a block of the disk: a torn write of one slot leaves the other intact
	slotCount = 2
	// voteVersion is the version of the format. Records of later versions name theirs in a field; the
	// frame of the record and that field never change.
	voteVersion = 1
	// slotHeader is the size of a record's header: the CRC-32C of the rest, and its length.
	slotHeader   = 8
	voteFileSize = 2 * slotCount * slotSize // includes the slots of the extent
)

// The keys that raft uses.
var (
	keyTerm      = []byte("CurrentTerm")
	keyVotedIn   = []byte("LastVoteTerm")
	keyCandidate = []byte("LastVoteCand")
)

// errNotFound is the error that raft recognizes, by its text.
var errNotFound = errors.New("not found")

func openVotes(fs vfs.FS, dir string, must func(write func() error) bool) (*votes, error) {
	name := filepath.Join(dir, voteFile)
	v := &votes{must: must}
	var err error
	if v.file, err = fs.Open(name); isNotExist(err) {
		return v, v.create(fs, dir, name)
	}
	if err != nil {
		return nil, err
	}
	slots, err := v.read(name)
	if err == nil {
		// A file of an earlier version has no extents. The log is whole even without space for them.
		if err = v.file.Allocate(voteFileSize); vfs.Short(err) {
			err = nil
		}
	}
	if err != nil || v.serial == 0 {
		return v, err
	}
	return v, v.mend(slots)
}

// read reads the newest record and changes nothing. It returns both slots. The serial number stays 0 if
// there is no record yet.
func (v *votes) read(name string) (slots []byte, err error) {
	slots = make([]byte, slotCount*slotSize)
	if _, err := v.file.ReadAt(slots, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for i := range slotCount {
		serial, vote, version, ok := decodeVote(slots[i*slotSize : (i+1)*slotSize])
		if !ok {
			continue
		}
		if err := wire.CheckVersion("vote", version, voteVersion); err != nil {
			return nil, storage.Damaged(name, err)
		}
		if serial > v.serial {
			v.serial, v.vote = serial, vote
		}
	}
	// The first record goes to the second slot, where a crash may have torn it.
	if v.serial == 0 && !blank(slots[:slotSize]) {
		return nil, &CorruptError{File: name, Err: errors.New("neither record of the vote is whole")}
	}
	return slots, nil
}

// mend writes the newest record to both slots. If the previous process was killed, the record may not be
// durable yet, so it is synced before the other slot is written.
func (v *votes) mend(slots []byte) error {
	if err := v.file.Sync(); err != nil {
		return err
	}
	b := encodeVote(v.serial, v.vote)
	for at := int64(0); at < slotCount*slotSize; at += slotSize {
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

// create makes the file, with space for all slots.
func (v *votes) create(fs vfs.FS, dir, name string) (err error) {
	if v.file, err = fs.Create(name); err != nil {
		return err
	}
	if err = v.file.Allocate(voteFileSize); err == nil {
		err = errors.Join(v.file.Sync(), fs.SyncDir(dir))
	}
	return err
}

// openSlot returns the record in a slot, and false if there is no whole one.
func openSlot(slot []byte) (record []byte, ok bool) {
	size := int64(binary.LittleEndian.Uint32(slot[4:]))
	if size > int64(len(slot)-slotHeader) || crc32.Checksum(slot[4:slotHeader+size], castagnoli) != binary.LittleEndian.Uint32(slot) {
		return nil, false
	}
	return slot[slotHeader : slotHeader+size], true
}

// sealSlot fills in the header of a record.
func sealSlot(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-slotHeader))
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

func decodeVote(slot []byte) (serial uint64, v vote, version uint64, ok bool) {
	version = voteVersion
	record, ok := openSlot(slot)
	if !ok {
		return 0, v, version, false
	}
	r := wire.NewReader(record)
	for r.Next() {
		switch r.Field() {
		case 1:
			serial = r.Uint()
		case 2:
			v.term = r.Uint()
		case 3:
			v.votedIn = r.Uint()
		case 4:
			v.candidate = append([]byte(nil), r.Bytes()...)
		case 15:
			version = r.Uint()
		}
	}
	return serial, v, version, r.Err() == nil && serial > 0
}

func encodeVote(serial uint64, v vote) []byte {
	b := make([]byte, slotHeader, 256)
	b = wire.Uint(b, 1, serial)
	b = wire.Uint(b, 2, v.term)
	b = wire.Uint(b, 3, v.votedIn)
	b = wire.Text(b, 4, v.candidate)
	return sealSlot(b)
}

// save makes a record durable. Raft panics on an error, so save does not return errors of the disk: see
// store.must.
func (v *votes) save(next vote) error {
	b := encodeVote(v.serial+1, next)
	if len(b) > slotSize {
		return errors.New("raftlog: the candidate's name is too long")
	}
	saved := v.must(func() error {
		if _, err := v.file.WriteAt(b, int64((v.serial+1)%slotCount)*slotSize); err != nil {
			return err
		}
		return v.file.Sync()
	})
	if !saved {
		return nil
	}
	v.serial++
	v.mu.Lock()
	v.vote = next
	v.mu.Unlock()
	v.copy(b)
	return nil
}

// copy writes the newest record to the slot that is written next. The copy need not be durable: the next
// record overwrites it, and only then is the other slot written again. If it fails, only one record
// exists, which suffices until it is damaged.
func (v *votes) copy(b []byte) {
	_, _ = v.file.WriteAt(b, int64((v.serial+1)%slotCount)*slotSize)
}

// last returns the last durable vote. Unlike raft's methods, any goroutine may call it.
func (v *votes) last() (term uint64, candidate string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.votedIn, string(v.candidate)
}

// SetUint64 implements raft.StableStore.
func (v *votes) SetUint64(key []byte, n uint64) error {
	switch string(key) {
	case string(keyTerm):
		if n == v.term {
			return nil
		}
		next := v.vote
		next.term = n
		return v.save(next)
	case string(keyVotedIn):
		v.pending = n
		return nil
	}
	return errors.New("raftlog: unknown number key")
}

// Set implements raft.StableStore.
func (v *votes) Set(key, candidate []byte) error {
	if string(key) != string(keyCandidate) {
		return errors.New("raftlog: unknown value key")
	}
	next := v.vote
	next.votedIn, next.candidate = v.pending, append([]byte(nil), candidate...)
	next.term = max(next.term, next.votedIn)
	return v.save(next)
}

// GetUint64 implements raft.StableStore.
func (v *votes) GetUint64(key []byte) (uint64, error) {
	switch string(key) {
	case string(keyTerm):
		return v.term, nil
	case string(keyVotedIn):
		return v.votedIn, nil
	}
	return 0, errNotFound
}

// Get implements raft.StableStore.
func (v *votes) Get(key []byte) ([]byte, error) {
	if string(key) != string(keyCandidate) || v.candidate == nil {
		return nil, errNotFound
	}
	return v.candidate, nil
}

var _ raft.StableStore = (*votes)(nil)
