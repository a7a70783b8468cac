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

	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A votes is a raft.StableStore: the term, and for whom this node voted in which. All are one record,
// written at once; raft by itself writes a vote in two steps, between which a crash would leave the
// new term with the old candidate. There are two slots, written in turn, so that one is always whole.
// When one is durable the other gets the same, in its own time: if a slot is damaged later, the record
// is still there, and not the one before it. Raft's main loop is the only one that uses it.
type votes struct {
	file   vfs.File
	serial uint64     // of the record written last
	mu     sync.Mutex // held while vote is replaced, and by who is not raft and reads it
	vote
	pending uint64                        // a vote's term, whose candidate is to follow
	must    func(write func() error) bool // runs a write; false if it could not be done
}

type vote struct {
	term      uint64
	votedIn   uint64
	candidate []byte
}

const (
	voteFile  = "vote"
	slotSize  = 4 << 10 // a block of the disk: a torn write of one leaves the other
	slotCount = 2
	// voteVersion is the format's. A record says it in a field of a later version: its frame and that
	// field stay as they are.
	voteVersion = 1
	// slotHeader is of a record: the CRC-32C of the rest, and its length.
	slotHeader   = 8
	voteFileSize = 2 * slotCount * slotSize // with the slots of the extent
)

// The keys are raft's.
var (
	keyTerm      = []byte("CurrentTerm")
	keyVotedIn   = []byte("LastVoteTerm")
	keyCandidate = []byte("LastVoteCand")
)

// errNotFound is what raft expects, by its text.
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
		// An earlier version knows of no extents. Without room for them the log is no less whole.
		if err = v.file.Allocate(voteFileSize); vfs.Short(err) {
			err = nil
		}
	}
	if err != nil || v.serial == 0 {
		return v, err
	}
	return v, v.mend(slots)
}

// read reads the newest record, and changes nothing. It returns both slots; the serial number stays
// 0 if there is no record yet.
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
			return nil, damaged(name, err)
		}
		if serial > v.serial {
			v.serial, v.vote = serial, vote
		}
	}
	// The first record stands in the second slot: a crash may have torn it.
	if v.serial == 0 && !blank(slots[:slotSize]) {
		return nil, &CorruptError{name, errors.New("neither record of the vote is whole")}
	}
	return slots, nil
}

// mend makes both slots hold the newest record. What was read may not be durable yet, if the process
// before was killed: one slot has to be before the other is written.
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

// create makes the file, with room for all slots.
func (v *votes) create(fs vfs.FS, dir, name string) (err error) {
	if v.file, err = fs.Create(name); err != nil {
		return err
	}
	if err = v.file.Allocate(voteFileSize); err == nil {
		err = errors.Join(v.file.Sync(), fs.SyncDir(dir))
	}
	return err
}

// openSlot returns the record of a slot; false if none is whole there.
func openSlot(slot []byte) (record []byte, ok bool) {
	size := int64(binary.LittleEndian.Uint32(slot[4:]))
	if size > int64(len(slot)-slotHeader) || crc32.Checksum(slot[4:slotHeader+size], castagnoli) != binary.LittleEndian.Uint32(slot) {
		return nil, false
	}
	return slot[slotHeader : slotHeader+size], true
}

// sealSlot fills in the header before a record.
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

// save makes a record durable. Raft panics at an error, so it gets none of the disk's: see store.must.
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

// copy brings the newest record to the slot that is written next. It need not be durable: the next
// record takes its place, and only then is the other slot written again. If it fails there is one
// record, which is as good until it is damaged.
func (v *votes) copy(b []byte) {
	_, _ = v.file.WriteAt(b, int64((v.serial+1)%slotCount)*slotSize)
}

// last returns the last vote that is durable. Unlike raft's methods it may be called by anyone.
func (v *votes) last() (term uint64, candidate string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.votedIn, string(v.candidate)
}

// SetUint64 is raft.StableStore.
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
	return errors.New("raftlog: a number of raft's that is not known")
}

// Set is raft.StableStore.
func (v *votes) Set(key, candidate []byte) error {
	if string(key) != string(keyCandidate) {
		return errors.New("raftlog: a value of raft's that is not known")
	}
	next := v.vote
	next.votedIn, next.candidate = v.pending, append([]byte(nil), candidate...)
	next.term = max(next.term, next.votedIn)
	return v.save(next)
}

// GetUint64 is raft.StableStore.
func (v *votes) GetUint64(key []byte) (uint64, error) {
	switch string(key) {
	case string(keyTerm):
		return v.term, nil
	case string(keyVotedIn):
		return v.votedIn, nil
	}
	return 0, errNotFound
}

// Get is raft.StableStore.
func (v *votes) Get(key []byte) ([]byte, error) {
	if string(key) != string(keyCandidate) || v.candidate == nil {
		return nil, errNotFound
	}
	return v.candidate, nil
}

var _ raft.StableStore = (*votes)(nil)
