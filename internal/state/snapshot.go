// SPDX-License-Identifier: Apache-2.0

package state

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/tidwall/btree"

	"github.com/coterie-kv/coterie/internal/auth"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/wire"
)

// A Snapshot is an immutable copy of the whole state. It can be written while the state changes.
type Snapshot struct {
	view      *View
	proposers *btree.Map[uint64, *proposer]
	floor     uint64 // of the proposers
}

// Snapshot returns a snapshot of the state. Its cost does not depend on the size of the state.
func (s *State) Snapshot() *Snapshot {
	return &Snapshot{s.View(), s.proposers.freeze(), s.proposers.floor}
}

// Index returns the index of the last entry that the snapshot contains.
func (sn *Snapshot) Index() uint64 { return sn.view.Index }

// Revision returns the revision of the snapshot's store.
func (sn *Snapshot) Revision() int64 { return sn.view.KV.Revision() }

// A record of a snapshot is a message with one of these fields, in this order: the head, members, the store of
// users and roles, roles, users, alarms, removals of members, leases, proposers each with its results, versions. Readers skip unknown fields.
// A stream of version 1 has no records of users, roles and alarms: a reader that skipped them would permit everything,
// and would lose the alarms.
const (
	recordHead     = 1 // once
	recordLease    = 2
	recordProposer = 3
	recordVersion  = 4 // of a key: first the versions older than the history, then the history
	recordResult   = 5 // of the preceding proposer; one record each, because together they may be large
	recordMember   = 6
	recordAuth     = 7 // once, if there was ever a user or a role
	recordRole     = 8
	recordUser     = 9
	recordAlarm    = 10
	recordRemoval  = 11
)

// WriteTo writes the snapshot. Every call writes the same bytes.
func (sn *Snapshot) WriteTo(w io.Writer) (int64, error) {
	v := sn.view
	version := command.Blocks1
	if !v.Auth.Initial() || len(v.Alarms) > 0 {
		version = command.Blocks2
	}
	bw := command.NewBlockWriterOf(w, version)
	record := func(field int, encode func(b []byte) []byte) bool {
		return bw.Record(func(b []byte) []byte { return wire.Message(b, field, encode) }) == nil
	}
	record(recordHead, func(b []byte) []byte {
		b = wire.Uint(b, 1, v.Index)
		b = wire.Uint(b, 2, v.Term)
		b = wire.Uint(b, 3, v.Hash)
		b = wire.Int(b, 4, v.KV.Revision())
		b = wire.Int(b, 5, v.KV.CompactRevision())
		b = wire.Uint(b, 6, sn.floor)
		return wire.Uint(b, 7, v.Epoch)
	})
	for i := range v.Members {
		record(recordMember, v.Members[i].append)
	}
	if !v.Auth.Initial() {
		record(recordAuth, v.Auth.Append)
		for _, r := range v.Auth.Roles() {
			record(recordRole, r.Append)
		}
		for _, u := range v.Auth.Users() {
			record(recordUser, u.Append)
		}
	}
	for _, a := range v.Alarms {
		record(recordAlarm, a.append)
	}
	for _, r := range v.Removals {
		record(recordRemoval, r.append)
	}
	v.Leases.All()(func(l lease.Lease) bool {
		return record(recordLease, func(b []byte) []byte { return wire.Int(wire.Int(b, 1, l.ID), 2, int64(l.TTL)) })
	})
	sn.proposers.Scan(func(id uint64, p *proposer) bool {
		ok := record(recordProposer, func(b []byte) []byte { return p.append(b, id) })
		for i := 0; ok && i < len(p.results); i++ {
			ok = record(recordResult, p.results[i].append)
		}
		return ok
	})
	keyVersion := func(kv *mvcc.KeyValue) bool {
		return bw.LongRecord(len(kv.Key)+len(kv.Value), func(b []byte) []byte { return command.AppendVersion(b, recordVersion, kv) }) == nil
	}
	v.KV.Base(func(kv mvcc.KeyValue) bool { return keyVersion(&kv) })
	v.KV.Changes(0, v.KV.Revision(), func(_ int64, changes []mvcc.KeyValue) bool {
		for i := range changes {
			if !keyVersion(&changes[i]) {
				return false
			}
		}
		return true
	})
	return bw.Close()
}

func (p *proposer) append(b []byte, id uint64) []byte {
	b = wire.Uint(b, 1, id)
	b = wire.Uint(b, 2, p.lastIndex)
	return wire.Uint(b, 3, p.lowest)
}

func (k *kept) append(b []byte) []byte {
	return wire.Message(wire.Uint(b, 1, k.seq), 2, k.result.Append)
}

// errSnapshot: the records are intact but do not describe a state.
var errSnapshot = errors.New("state: corrupt snapshot")

// Read reads a snapshot. It returns a State only if every byte is valid.
//
// Errors: *command.CorruptError, *wire.FormatError, another error that names the problem, or an error of
// r.
func Read(r io.Reader) (*State, error) {
	in := &restore{state: New()}
	err := in.read(r)
	if err == nil && in.loader == nil {
		err = fmt.Errorf("%w: it has no head", errSnapshot)
	}
	if err != nil {
		return nil, err
	}
	return in.finish()
}

// A restore is a State under construction.
type restore struct {
	state    *State
	loader   *mvcc.Loader
	loading  *loading // of the versions of a snapshot; nil before the first one
	auth     auth.Loader
	proposer *proposer // the last one read
	id       uint64    // of that proposer
}

// read reads all records.
func (in *restore) read(r io.Reader) (err error) {
	defer func() {
		if in.loading != nil {
			err = cmp.Or(in.loading.end(), err) // the error of the loader is about an earlier record
		}
	}()
	return command.ReadBlocks(r, in.record)
}

func (in *restore) record(b []byte) error {
	r := wire.NewReader(b)
	for r.Next() {
		var err error
		switch {
		case r.Field() == recordHead:
			err = in.head(r.Bytes())
		case in.loader == nil:
			err = fmt.Errorf("%w: it does not begin with its head", errSnapshot)
		case r.Field() == recordMember:
			err = in.addMember(r.Bytes())
		case r.Field() == recordAuth:
			err = in.auth.Store(r.Bytes())
		case r.Field() == recordRole:
			err = in.auth.Role(r.Bytes())
		case r.Field() == recordUser:
			err = in.auth.User(r.Bytes())
		case r.Field() == recordAlarm:
			err = in.addAlarm(r.Bytes())
		case r.Field() == recordRemoval:
			err = in.addRemoval(r.Bytes())
		case r.Field() == recordLease:
			err = in.addLease(r.Bytes())
		case r.Field() == recordProposer:
			err = in.addProposer(r.Bytes())
		case r.Field() == recordResult:
			err = in.addResult(r.Bytes())
		case r.Field() == recordVersion:
			err = in.addVersion(r.Bytes())
		}
		if err != nil {
			return err
		}
	}
	return r.Err()
}

// addVersion adds the next version of a key.
func (in *restore) addVersion(b []byte) error {
	if in.loading == nil {
		in.loading = newLoading(in.loader)
	}
	return in.loading.add(b)
}

func (in *restore) head(b []byte) error {
	if in.loader != nil {
		return fmt.Errorf("%w: it has two heads", errSnapshot)
	}
	var rev, compacted int64
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			in.state.index = r.Uint()
		case 2:
			in.state.term = r.Uint()
		case 3:
			in.state.hash = r.Uint()
		case 4:
			rev = r.Int()
		case 5:
			compacted = r.Int()
		case 6:
			in.state.proposers.floor = r.Uint()
		case 7:
			in.state.epoch = r.Uint()
		}
	}
	if err := in.begin(rev, compacted); err != nil {
		return err
	}
	return r.Err()
}

// begin prepares the restore of a store with these revisions.
func (in *restore) begin(rev, compacted int64) error {
	if rev < 1 || compacted > rev || compacted < -1 {
		return fmt.Errorf("%w: revision %d, compacted at %d", errSnapshot, rev, compacted)
	}
	in.loader = mvcc.NewLoader(rev, compacted)
	return nil
}

func (in *restore) addMember(b []byte) error {
	var m Member
	if err := m.decode(b); err != nil {
		return err
	}
	members := &in.state.members
	if n := len(*members); n > 0 && m.ID <= (*members)[n-1].ID {
		return fmt.Errorf("%w: member %x out of order", errSnapshot, m.ID)
	}
	*members = append(*members, m)
	return nil
}

func (in *restore) addLease(b []byte) error {
	var id, ttl int64
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			id = r.Int()
		case 2:
			ttl = r.Int()
		}
	}
	if !in.state.leases.Grant(lease.Nanoseconds(id, ttl)) {
		return fmt.Errorf("%w: lease %x comes twice", errSnapshot, id)
	}
	return r.Err()
}

func (in *restore) addProposer(b []byte) error {
	var id uint64
	p := &proposer{}
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			id = r.Uint()
		case 2:
			p.lastIndex = r.Uint()
		case 3:
			p.lowest = r.Uint()
		}
	}
	if id <= in.id {
		return fmt.Errorf("%w: proposer %x out of order", errSnapshot, id)
	}
	in.proposer, in.id = p, id
	in.state.proposers.table.Set(id, p)
	return r.Err()
}

func (in *restore) addResult(b []byte) (err error) {
	if in.proposer == nil {
		return fmt.Errorf("%w: a result without a proposer", errSnapshot)
	}
	k := kept{result: &command.Result{}}
	r := wire.NewReader(b)
	for r.Next() {
		switch r.Field() {
		case 1:
			k.seq = r.Uint()
		case 2:
			if k.result, err = command.DecodeResult(r.Bytes()); err != nil {
				return err
			}
		}
	}
	results := &in.proposer.results
	if k.seq < in.proposer.lowest || len(*results) > 0 && k.seq <= (*results)[len(*results)-1].seq {
		return fmt.Errorf("%w: results of proposer %x out of order", errSnapshot, in.id)
	}
	*results = append(*results, k)
	return r.Err()
}

// finish checks the users and roles, and attaches keys to leases. The newest version of a key determines its
// lease.
func (in *restore) finish() (*State, error) {
	s := in.state
	var err error
	if s.auth, err = in.auth.Finish(); err != nil {
		return nil, err
	}
	if s.kv, err = in.loader.Store(); err != nil {
		return nil, err
	}
	s.kv.Ascend("\x00", "\x00", 0, func(kv mvcc.KeyValue) bool {
		if kv.Lease != 0 {
			if !s.leases.Has(kv.Lease) {
				err = fmt.Errorf("%w: key %q has lease %x, which does not exist", errSnapshot, kv.Key, kv.Lease)
				return false
			}
			s.leases.Attach(kv.Lease, kv.Key)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}
