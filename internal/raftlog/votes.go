// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"errors"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A votes is a raft.StableStore: the term, the last vote's term, and its candidate. All three are one record and
// written at once. Raft itself writes a vote in two steps, and a crash between them would leave the new term with the
// old candidate (hashicorp/raft#661). Only raft's main loop may write.
type votes struct {
	record  storage.Record
	found   bool                          // the record has a value
	mu      sync.Mutex                    // held while vote is replaced, and while other goroutines read it
	vote                                  // the durable one
	pending uint64                        // term of a vote; Set follows with its candidate
	must    func(write func() error) bool // runs a write; false if it failed
}

type vote struct {
	term      uint64
	votedIn   uint64
	candidate []byte
}

// voteVersion is the version of the record. Records of later versions name theirs in field 15.
const voteVersion = 1

// The keys that raft uses.
var (
	keyTerm      = []byte("CurrentTerm")
	keyVotedIn   = []byte("LastVoteTerm")
	keyCandidate = []byte("LastVoteCand")
)

// errNotFound is the error that raft recognizes, by its text.
var errNotFound = errors.New("not found")

// loadVotes reads the record. Errors about its contents name the file.
func loadVotes(record storage.Record, file string, must func(write func() error) bool) (*votes, error) {
	b, err := record.Load()
	if err != nil {
		return nil, err
	}
	v := &votes{record: record, found: b != nil, must: must}
	v.vote, err = decodeVote(b, file)
	return v, err
}

func decodeVote(b []byte, file string) (v vote, err error) {
	version := uint64(voteVersion)
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
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
	if err = r.Err(); err == nil {
		err = wire.CheckVersion("vote", version, voteVersion)
	}
	if err != nil {
		return vote{}, storage.Damaged(file, err)
	}
	return v, nil
}

func encodeVote(v vote) []byte {
	b := make([]byte, 0, 64)
	b = wire.Uint(b, 2, v.term)
	b = wire.Uint(b, 3, v.votedIn)
	return wire.Text(b, 4, v.candidate)
}

// save makes a record durable. Raft panics on an error, so save does not return errors of the disk: see
// store.must.
func (v *votes) save(next vote) error {
	b := encodeVote(next)
	if len(b) > storage.MaxRecord {
		return errors.New("raftlog: the candidate's name is too long")
	}
	if !v.must(func() error { return v.record.Save(b) }) {
		return nil
	}
	v.mu.Lock()
	v.vote = next
	v.mu.Unlock()
	return nil
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
