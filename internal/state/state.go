// SPDX-License-Identifier: Apache-2.0

// Package state is the replicated state machine: the store, the leases, the users, the members, and the table
// that detects repeated proposals. The state is a function of the log alone: the same entries produce the same
// state, byte for byte, on every node.
package state

import (
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie/internal/auth"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// A State is the state machine. It belongs to one goroutine. Its Views are immutable.
type State struct {
	digest
	kv        *mvcc.Store
	leases    *lease.Table
	auth      *auth.Store // a change replaces it
	alarms    Alarms      // a change replaces it
	proposers *proposers
	members   Members
	removals  Removals // a change replaces them
	epoch     uint64
	index     uint64           // of the last entry applied
	term      uint64           // of the last applied entry with commands
	decoder   command.Decoder  // of the entry that is being applied
	results   []command.Result // memory for the next results
	parts     []command.Result // memory for the results of the parts of the transaction that is being executed
	path      []bool           // of that transaction; its memory is reused
}

// New returns the state before the first entry.
func New() *State {
	return &State{kv: mvcc.New(), leases: lease.NewTable(), auth: auth.New(), proposers: newProposers()}
}

// A Summary is the small part of the state after an entry, which costs little to copy. It never changes.
type Summary struct {
	Auth   *auth.Store // another one after each change of users, roles or permissions
	Alarms Alarms
	// Members are those of the last applied configuration. Epoch identifies the founding; it is 0 before
	// the first command of the first leader.
	Members  Members
	Removals Removals
	Epoch    uint64
	Index    uint64 // of the last entry
	Term     uint64 // of the last command
	Hash     uint64 // of all changes since the beginning: equal on nodes at the same index

	// Of the store, as the methods of mvcc.View return them.
	Revision, CompactRevision, Bytes int64
	Keys                             int

	Granted int // number of leases
}

// A View is the state after an entry. Any number of goroutines may read it.
type View struct {
	Summary
	KV     *mvcc.View
	Leases *lease.View
}

// Summary returns the summary of the current state.
func (s *State) Summary() Summary {
	return Summary{
		Auth: s.auth, Alarms: s.alarms, Members: s.members, Removals: s.removals, Epoch: s.epoch, Index: s.index, Term: s.term, Hash: s.hash,
		Revision: s.kv.Revision(), CompactRevision: s.kv.CompactRevision(), Bytes: s.kv.Bytes(), Keys: s.kv.Keys(),
		Granted: s.leases.Len(),
	}
}

// View returns the current state. Its cost does not depend on the size of the state, but until the next View, each change
// copies the nodes of trees that it is the first to change.
func (s *State) View() *View { return &View{s.Summary(), s.kv.View(), s.leases.Freeze()} }

// Index returns the index of the last entry.
func (s *State) Index() uint64 { return s.index }

// Term returns the term of the last command.
func (s *State) Term() uint64 { return s.term }

// KV returns the store itself and Leases the leases themselves: for the goroutine that changes the state, until it does.

func (s *State) KV() *mvcc.View { return s.kv.Current() }

func (s *State) Leases() *lease.View { return &s.leases.View }

// Permit returns why a user may not execute an operation, or OK. A nil user is not checked.
func (v *View) Permit(as *command.As, op *command.Op) command.Code {
	if as == nil {
		return command.OK
	}
	return v.Auth.Guard(as).Op(op, v.Leases)
}

// Check verifies the invariants of the store, the leases and the users, and that store and leases agree.
func (v *View) Check() error {
	if err := v.KV.Check(); err != nil {
		return err
	}
	if err := v.Auth.Check(); err != nil {
		return err
	}
	attached := 0
	v.KV.Ascend("\x00", "\x00", 0, func(kv mvcc.KeyValue) bool {
		if kv.Lease != 0 {
			attached++
		}
		return true
	})
	if attached != v.Leases.Attached() {
		return fmt.Errorf("state: %d keys have a lease, %d are attached to one", attached, v.Leases.Attached())
	}
	return v.Leases.Check(func(id int64, key string) error {
		if kv, ok := v.KV.Get(key, 0); !ok || kv.Lease != id {
			return fmt.Errorf("state: key %q is attached to lease %x and does not have it", key, id)
		}
		return nil
	})
}

// A Sink is notified of the effects of entries. Its methods are called during Apply.
type Sink interface {
	// Answer is called with the result of every proposal, except proposals of the cluster itself and
	// those that no caller waits for. For a repeated proposal it is called again with the first result.
	Answer(proposer, seq uint64, r *command.Result)
	// Granted is called when a lease is granted, Ended when it is revoked or has expired.
	Granted(l lease.Lease)
	Ended(id int64)
}

// Discard is a Sink that ignores every call: for a reader that wants the state alone.
type Discard struct{}

// Answer implements Sink.
func (Discard) Answer(uint64, uint64, *command.Result) {}

// Granted implements Sink.
func (Discard) Granted(lease.Lease) {}

// Ended implements Sink.
func (Discard) Ended(int64) {}

// Advance records an entry that has no commands.
func (s *State) Advance(index uint64) { s.index = max(s.index, index) }

// Configure applies an entry that lists the members. An entry that was applied already has no effect.
func (s *State) Configure(index uint64, servers []Server) {
	if index > s.index {
		s.configure(servers)
		s.index = index
	}
}

// Apply applies an entry. An entry that was applied already has no effect. An error means that the entry
// cannot be decoded: no part of it was applied, and this replica must not continue. The entry must not change
// during the call. The state keeps none of its memory.
//
// Errors: *command.CorruptError, *wire.FormatError, or one that wraps wire.ErrMalformed.
func (s *State) Apply(index, term uint64, entry []byte, sink Sink) error {
	if index <= s.index {
		return nil
	}
	defer s.decoder.Reset()
	// The whole entry is decoded before any of it is applied: the last proposal may be of a kind that
	// this version does not know.
	proposals, err := s.decoder.Decode(entry)
	if err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	for i := range proposals {
		if i%mvcc.WarmAtOnce == 0 {
			s.warm(proposals[i:min(i+mvcc.WarmAtOnce, len(proposals))])
		}
		s.propose(index, term, &proposals[i], sink)
	}
	s.index, s.term = index, term
	return nil
}

// warm prepares the store for the puts of some proposals. It changes nothing.
func (s *State) warm(proposals []command.Proposal) {
	var puts [mvcc.WarmAtOnce]string
	keys := puts[:0]
	for i := range proposals {
		if put := proposals[i].Command.Put; put != nil {
			keys = append(keys, put.Key)
		}
	}
	s.kv.Warm(keys)
}

// propose applies a proposal unless it was applied before.
func (s *State) propose(index, term uint64, p *command.Proposal, sink Sink) {
	if p.Proposer == 0 {
		s.execute(term, &p.Command, sink)
		return
	}
	if p.Command.Register {
		r := &command.Result{Revision: s.kv.Revision()}
		if !s.proposers.register(p.Proposer, index, p.Command.Applied) {
			r.Code = command.UnknownProposer
		}
		sink.Answer(p.Proposer, p.Seq, r)
		return
	}
	known := s.proposers.get(p.Proposer)
	if known == nil {
		sink.Answer(p.Proposer, p.Seq, &command.Result{Code: command.UnknownProposer, Revision: s.kv.Revision()})
		return
	}
	known.heard(index, p.Lowest)
	if p.Seq < known.lowest {
		return // answered, or abandoned
	}
	if r := known.result(p.Seq); r != nil {
		sink.Answer(p.Proposer, p.Seq, r)
		return
	}
	r := s.execute(term, &p.Command, sink)
	known.keep(p.Seq, r)
	sink.Answer(p.Proposer, p.Seq, r)
}

// Result returns the result of an applied proposal, as long as its proposer may wait for it.
func (s *State) Result(proposer, seq uint64) (*command.Result, bool) {
	if p := s.proposers.look(proposer); p != nil {
		if seq == 0 {
			return &command.Result{Revision: s.kv.Revision()}, true // the proposer is registered
		}
		if r := p.result(seq); r != nil {
			return r, true
		}
	}
	return nil, false
}

func (s *State) execute(term uint64, c *command.Command, sink Sink) *command.Result {
	if c.As != nil {
		if code := s.auth.Permit(c, &s.leases.View); code != command.OK {
			return refusal(s.kv, code)
		}
	}
	if c.Op != (command.Op{}) {
		return s.run(&c.Op)
	}
	r := &s.hold(&c.Op, 1)[0]
	switch {
	case c.Compact != nil:
		r.Code = s.compact(c.Compact.Revision)
	case c.Grant != nil:
		r.Code = s.grant(c.Grant, sink)
	case c.Revoke != nil:
		if !s.end(c.Revoke.ID, sink) {
			r.Code = command.LeaseNotFound
		}
	case c.Auth != nil:
		r.Code = s.authorize(c.Auth)
	case c.Alarm != nil:
		r.Count = s.alarm(c.Alarm)
	case c.Enroll != nil:
		if c.Enroll.Term == term {
			s.enroll(c.Enroll)
		}
	case c.Term:
		if s.epoch == 0 && c.Epoch != 0 {
			s.epoch = c.Epoch
			s.note(founded, c.Epoch)
		}
	case c.Expire != nil:
		if c.Expire.Term == term {
			for _, id := range c.Expire.IDs {
				s.end(id, sink)
			}
		}
	}
	r.Revision = s.kv.Revision()
	if r.Code == command.Compacted {
		r.CompactRevision = s.kv.CompactRevision()
	}
	return r
}

func (s *State) compact(rev int64) command.Code {
	code := revisionCode(s.kv.Compact(rev))
	if code == command.OK {
		s.note(compacted, uint64(rev))
	}
	return code
}

func revisionCode(err error) command.Code {
	switch err {
	case mvcc.ErrCompacted:
		return command.Compacted
	case mvcc.ErrFuture:
		return command.FutureRevision
	}
	return command.OK
}

func (s *State) grant(g *command.Grant, sink Sink) command.Code {
	l := lease.Nanoseconds(g.ID, g.TTL)
	if !s.leases.Grant(l) {
		return command.LeaseExists
	}
	s.note(granted, uint64(g.ID), uint64(g.TTL))
	sink.Granted(l)
	return command.OK
}

// authorize changes the users, the roles or their permissions.
func (s *State) authorize(c *command.Auth) command.Code {
	next, code := s.auth.Apply(c)
	if next != s.auth {
		s.auth = next
		s.note(authorized, next.Revision, sum(string(c.Append(nil))))
	}
	return code
}

// end ends a lease and deletes its keys, all in one revision.
func (s *State) end(id int64, sink Sink) bool {
	if !s.leases.Has(id) {
		return false
	}
	for _, key := range slices.Collect(s.leases.Keys(id)) {
		s.delete(key, "")
	}
	s.leases.Remove(id)
	s.kv.Commit()
	s.note(ended, uint64(id))
	sink.Ended(id)
	return true
}

// put and delete update the store and the leases together.

func (s *State) put(key, value string, leaseID int64) (prev mvcc.KeyValue) {
	// The store copies both strings, which share the memory of the entry.
	prev, now := s.kv.Put(key, value, leaseID)
	if prev.Lease != leaseID { // a key that did not exist had none
		s.detach(&prev)
		if leaseID != 0 {
			s.leases.Attach(leaseID, now.Key)
		}
	}
	s.noteVersion(&now)
	return prev
}

func (s *State) delete(key, end string) []mvcc.KeyValue {
	deleted := s.kv.Delete(key, end)
	for i := range deleted {
		kv := &deleted[i]
		s.detach(kv)
		s.noteVersion(&mvcc.KeyValue{Key: kv.Key, ModRevision: s.kv.Revision() + 1})
	}
	return deleted
}

func (s *State) detach(kv *mvcc.KeyValue) {
	if kv.Lease != 0 {
		s.leases.Detach(kv.Lease, kv.Key)
	}
}
