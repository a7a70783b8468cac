// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1019 raft still reads the fields that it calls deprecated

package raftnet

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/rpc"
)

// Raft acts on whatever a member says, and so would every other member after it. A node that is
// faulty, or newer than this one, must not stop the others: its message is refused where it arrives,
// before anything of it is stored.

// The errors with which messages are refused, beside those of Config.Check.
var (
	// ErrMalformed: no node of this protocol sends such a message.
	ErrMalformed = errors.New("raftnet: malformed message")
	// ErrTerm: the term is further ahead than elections can have brought it.
	ErrTerm = errors.New("raftnet: absurd term")
)

const (
	// maxTermLead is how far a term may be ahead of the newest that this node knows of. Each election
	// raises the term by one. A node that was away while its cluster did nothing but hold an election
	// every millisecond for 34 years is behind by less.
	maxTermLead = 1 << 40
	// maxIndex is more than the index of any entry: an entry each nanosecond makes it in 146 years.
	maxIndex = 1 << 62
)

// CheckJoin refuses the index and the term that a leader names to a node that joins. The node knows of no
// term itself, so it believes all that elections and writes can bring at all.
func CheckJoin(index, term uint64) error {
	if index > maxIndex || term > maxIndex {
		return fmt.Errorf("%w: %d, at index %d", ErrTerm, term, index)
	}
	return nil
}

// checkTerm refuses a term that raft must not hear of: it would take it over, and terms only rise.
func (t *Transport) checkTerm(term uint64) error {
	if t.cfg.Newest == nil {
		return nil
	}
	if newest := t.cfg.Newest(); term > newest && term-newest > maxTermLead {
		return fmt.Errorf("%w: %d, and the newest that this node knows of is %d", ErrTerm, term, newest)
	}
	return nil
}

// check refuses a request that was decoded, and that raft must not see.
func (t *Transport) check(command any) error {
	if err := t.checkTerm(describe(command).Term); err != nil {
		return err
	}
	m, ok := command.(*raft.AppendEntriesRequest)
	if !ok || t.cfg.Check == nil {
		return nil
	}
	for _, entry := range m.Entries {
		if entry.Type != raft.LogCommand {
			continue
		}
		if err := t.cfg.Check(entry.Data); err != nil {
			return fmt.Errorf("raftnet: entry %d of term %d: %w", entry.Index, entry.Term, err)
		}
	}
	return nil
}

// refused says that a message of a peer was refused, which ends the connection.
func (t *Transport) refused(c *rpc.Conn, err error) {
	if t.cfg.Refused != nil {
		t.cfg.Refused(c.Peer(), c.RemoteAddr(), err)
	}
}

// checkAppend refuses an append that contradicts itself.
func checkAppend(m *raft.AppendEntriesRequest) error {
	if m.PrevLogEntry > maxIndex {
		return fmt.Errorf("%w: an append after entry %d", ErrMalformed, m.PrevLogEntry)
	}
	index, term := m.PrevLogEntry, m.PrevLogTerm
	for _, entry := range m.Entries {
		if index++; entry.Index != index {
			return fmt.Errorf("%w: entry %d follows %d", ErrMalformed, entry.Index, index-1)
		}
		if entry.Term < term {
			return fmt.Errorf("%w: entry %d of term %d follows one of term %d", ErrMalformed, index, entry.Term, term)
		}
		term = entry.Term
	}
	if term > m.Term {
		return fmt.Errorf("%w: entry %d is of term %d, its leader of %d", ErrMalformed, index, term, m.Term)
	}
	// See AppendEntries: no node says more. Raft itself would commit whatever its log has up to there.
	if m.LeaderCommitIndex > index {
		return fmt.Errorf("%w: an append up to entry %d commits entry %d", ErrMalformed, index, m.LeaderCommitIndex)
	}
	return nil
}

// checkLast refuses a last entry that its node cannot have in a term.
func checkLast(index, entryTerm, term uint64) error {
	if index > maxIndex || entryTerm > term {
		return fmt.Errorf("%w: in term %d a log that ends at entry %d of term %d", ErrMalformed, term, index, entryTerm)
	}
	return nil
}

// checkConfiguration refuses members that raft cannot decode, where it would panic in a goroutine of
// its own, and those of which no majority can be.
func checkConfiguration(b []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: configuration: %v", ErrMalformed, p)
		}
	}()
	seen, voters := map[raft.ServerID]bool{}, 0
	for _, s := range raft.DecodeConfiguration(b).Servers {
		if s.ID == "" || seen[s.ID] {
			return fmt.Errorf("%w: configuration: member %q is nameless, or comes twice", ErrMalformed, s.ID)
		}
		seen[s.ID] = true
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	if voters == 0 {
		return fmt.Errorf("%w: configuration: nobody has a vote", ErrMalformed)
	}
	return nil
}
