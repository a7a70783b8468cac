// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1019 raft still reads the fields that it calls deprecated

package raftnet

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/rpc"
)

// Raft acts on every message of a member, and so does every other member that receives it from raft. A
// faulty node, or one of a newer version, must not stop the others. So this package rejects its messages
// on arrival, before anything is stored.

// Errors with which messages are rejected, in addition to those of Config.Check.
var (
	// ErrMalformed: no node of this protocol sends such a message.
	ErrMalformed = errors.New("raftnet: malformed message")
	// ErrTerm: the term is further ahead than elections can have brought it.
	ErrTerm = errors.New("raftnet: absurd term")
)

const (
	// maxTermLead is how far a term may be ahead of the newest term that this node knows. Each election
	// raises the term by one. A node that was away for 34 years, during which its cluster held an
	// election every millisecond, is behind by less.
	maxTermLead = 1 << 40
	// maxIndex exceeds the index of every entry: one entry per nanosecond reaches it after 146 years.
	maxIndex = 1 << 62
)

// CheckJoin rejects an impossible index or term from the leader that a node joins. The node knows no term
// yet, so CheckJoin accepts every value that elections and writes can reach.
func CheckJoin(index, term uint64) error {
	if index > maxIndex || term > maxIndex {
		return fmt.Errorf("%w: %d, at index %d", ErrTerm, term, index)
	}
	return nil
}

// checkTerm rejects an impossible term. Raft would adopt it, and terms only increase.
func (t *Transport) checkTerm(term uint64) error {
	if t.cfg.Newest == nil {
		return nil
	}
	if newest := t.cfg.Newest(); term > newest && term-newest > maxTermLead {
		return fmt.Errorf("%w: %d, and the newest that this node knows is %d", ErrTerm, term, newest)
	}
	return nil
}

// check rejects a decoded request that raft must not see.
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

// refused reports a rejected message of a peer. The caller then closes the connection.
func (t *Transport) refused(c *rpc.Conn, err error) {
	if t.cfg.Refused != nil {
		t.cfg.Refused(c.Peer(), c.RemoteAddr(), err)
	}
}

// checkAppend rejects an append that contradicts itself.
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
	// AppendEntries bounds the commit index. Raft itself would commit all entries of its log up to there.
	if m.LeaderCommitIndex > index {
		return fmt.Errorf("%w: an append up to entry %d commits entry %d", ErrMalformed, index, m.LeaderCommitIndex)
	}
	return nil
}

// checkLast rejects a last entry that a node cannot have in a term.
func checkLast(index, entryTerm, term uint64) error {
	if index > maxIndex || entryTerm > term {
		return fmt.Errorf("%w: in term %d a log that ends at entry %d of term %d", ErrMalformed, term, index, entryTerm)
	}
	return nil
}

// checkConfiguration rejects member lists that raft cannot decode, since it would panic in a goroutine of
// its own, and lists that have no majority.
func checkConfiguration(b []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: configuration: %v", ErrMalformed, p)
		}
	}()
	seen, voters := map[raft.ServerID]bool{}, 0
	for _, s := range raft.DecodeConfiguration(b).Servers {
		if s.ID == "" || seen[s.ID] {
			return fmt.Errorf("%w: configuration: member %q has no name or occurs twice", ErrMalformed, s.ID)
		}
		seen[s.ID] = true
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	if voters == 0 {
		return fmt.Errorf("%w: configuration: there is no voter", ErrMalformed)
	}
	return nil
}
