// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1019 raft still reads the fields that it calls deprecated

package raftnet

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/wire"
)

// maxEntries is the maximum number of entries that raft puts in one append (Config.MaxAppendEntries).
const maxEntries = 1024

// appendHeader appends raft's header, which takes fields 1 to 3 of every message.
func appendHeader(b []byte, h *raft.RPCHeader) []byte {
	b = wire.Int(b, 1, int64(h.ProtocolVersion))
	b = wire.Text(b, 2, h.ID)
	return wire.Text(b, 3, h.Addr)
}

// decode calls field with each field of a message that is not part of the header. It returns an error if
// the message is malformed.
func decode(b []byte, h *raft.RPCHeader, field func(num int, r *wire.Reader)) error {
	r := wire.NewReader(b)
	for r.Next() {
		if num := r.Field(); !decodeHeader(num, r, h) {
			field(num, r)
		}
	}
	return r.Err()
}

// decodeHeader decodes a field of raft's header. It returns false if the field is not part of it.
func decodeHeader(num int, r *wire.Reader, h *raft.RPCHeader) bool {
	switch num {
	case 1:
		h.ProtocolVersion = raft.ProtocolVersion(r.Int())
	case 2:
		h.ID = r.Bytes()
	case 3:
		h.Addr = r.Bytes()
	default:
		return false
	}
	return true
}

func encodeAppend(b []byte, m *raft.AppendEntriesRequest) []byte {
	const others = 128 // about the size of everything but the entries
	size := others
	for _, entry := range m.Entries {
		size += storage.SizeOf(entry)
	}
	b = slices.Grow(b, size)
	b = appendHeader(b, &m.RPCHeader)
	b = wire.Uint(b, 4, m.Term)
	b = wire.Text(b, 5, m.Leader)
	b = wire.Uint(b, 6, m.PrevLogEntry)
	b = wire.Uint(b, 7, m.PrevLogTerm)
	b = wire.Uint(b, 8, m.LeaderCommitIndex)
	for _, entry := range m.Entries {
		b = wire.LongMessage(b, 9, storage.SizeOf(entry), func(b []byte) []byte { return storage.AppendEntry(b, entry) })
	}
	return b
}

// decodeAppend decodes an append. Its entries share the memory of b. It rejects input that raft would
// trust and fail on: entries out of sequence, entries of obsolete types, configurations that cannot be
// decoded, and a commit index that the append does not cover.
func decodeAppend(b []byte) (*raft.AppendEntriesRequest, error) {
	n, err := countEntries(b)
	if err != nil {
		return nil, err
	}
	m, r := &raft.AppendEntriesRequest{}, wire.NewReader(b)
	var entries []raft.Log // one allocation for all: a batch may have hundreds
	if n > 0 {
		entries, m.Entries = make([]raft.Log, n), make([]*raft.Log, 0, n)
	}
	for r.Next() {
		switch num := r.Field(); num {
		case 4:
			m.Term = r.Uint()
		case 5:
			m.Leader = r.Bytes()
		case 6:
			m.PrevLogEntry = r.Uint()
		case 7:
			m.PrevLogTerm = r.Uint()
		case 8:
			m.LeaderCommitIndex = r.Uint()
		case 9:
			entry := &entries[len(m.Entries)]
			if err := decodeEntry(r.Bytes(), entry); err != nil {
				return nil, err
			}
			m.Entries = append(m.Entries, entry)
		default:
			decodeHeader(num, r, &m.RPCHeader)
		}
	}
	return m, checkAppend(m)
}

// countEntries returns the number of entries in an append, or an error if there are too many or the append is
// malformed.
func countEntries(b []byte) (n int, err error) {
	r := wire.NewReader(b)
	for r.Next() {
		if r.Field() == 9 {
			n++
		}
	}
	if n > maxEntries {
		return 0, fmt.Errorf("%w: more than %d entries", ErrMalformed, maxEntries)
	}
	return n, r.Err()
}

func decodeEntry(b []byte, l *raft.Log) error {
	if err := storage.ReadEntry(b, l); err != nil {
		return err
	}
	switch l.Type {
	case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		return nil
	case raft.LogConfiguration:
		return checkConfiguration(l.Data)
	}
	return fmt.Errorf("%w: entry of type %d", ErrMalformed, l.Type)
}

func encodeAppendResponse(b []byte, m *raft.AppendEntriesResponse) []byte {
	b = appendHeader(b, &m.RPCHeader)
	b = wire.Uint(b, 4, m.Term)
	b = wire.Uint(b, 5, m.LastLog)
	b = wire.Bool(b, 6, m.Success)
	return wire.Bool(b, 7, m.NoRetryBackoff)
}

// decodeAppendResponse overwrites all of m, as all decoders of responses do: raft uses one response for
// many requests.
func decodeAppendResponse(b []byte, m *raft.AppendEntriesResponse) error {
	*m = raft.AppendEntriesResponse{}
	r := wire.NewReader(b)
	for r.Next() {
		switch num := r.Field(); num {
		case 4:
			m.Term = r.Uint()
		case 5:
			m.LastLog = r.Uint()
		case 6:
			m.Success = r.Bool()
		case 7:
			m.NoRetryBackoff = r.Bool()
		default:
			decodeHeader(num, r, &m.RPCHeader)
		}
	}
	return r.Err()
}

func encodeVote(b []byte, m *raft.RequestVoteRequest) []byte {
	b = appendHeader(b, &m.RPCHeader)
	b = wire.Uint(b, 4, m.Term)
	b = wire.Text(b, 5, m.Candidate)
	b = wire.Uint(b, 6, m.LastLogIndex)
	b = wire.Uint(b, 7, m.LastLogTerm)
	return wire.Bool(b, 8, m.LeadershipTransfer)
}

func decodeVote(b []byte) (*raft.RequestVoteRequest, error) {
	m := &raft.RequestVoteRequest{}
	err := decode(b, &m.RPCHeader, func(num int, r *wire.Reader) {
		switch num {
		case 4:
			m.Term = r.Uint()
		case 5:
			m.Candidate = r.Bytes()
		case 6:
			m.LastLogIndex = r.Uint()
		case 7:
			m.LastLogTerm = r.Uint()
		case 8:
			m.LeadershipTransfer = r.Bool()
		}
	})
	return m, errors.Join(err, checkLast(m.LastLogIndex, m.LastLogTerm, m.Term))
}

func encodeVoteResponse(b []byte, m *raft.RequestVoteResponse) []byte {
	b = appendHeader(b, &m.RPCHeader)
	b = wire.Uint(b, 4, m.Term)
	b = wire.Text(b, 5, m.Peers)
	return wire.Bool(b, 6, m.Granted)
}

func decodeVoteResponse(b []byte, m *raft.RequestVoteResponse) error {
	*m = raft.RequestVoteResponse{}
	return decode(b, &m.RPCHeader, func(num int, r *wire.Reader) {
		switch num {
		case 4:
			m.Term = r.Uint()
		case 5:
			m.Peers = r.Bytes()
		case 6:
			m.Granted = r.Bool()
		}
	})
}

func encodePreVote(b []byte, m *raft.RequestPreVoteRequest) []byte {
	b = appendHeader(b, &m.RPCHeader)
	b = wire.Uint(b, 4, m.Term)
	b = wire.Uint(b, 5, m.LastLogIndex)
	return wire.Uint(b, 6, m.LastLogTerm)
}

func decodePreVote(b []byte) (*raft.RequestPreVoteRequest, error) {
	m := &raft.RequestPreVoteRequest{}
	err := decode(b, &m.RPCHeader, func(num int, r *wire.Reader) {
		switch num {
		case 4:
			m.Term = r.Uint()
		case 5:
			m.LastLogIndex = r.Uint()
		case 6:
			m.LastLogTerm = r.Uint()
		}
	})
	return m, errors.Join(err, checkLast(m.LastLogIndex, m.LastLogTerm, m.Term))
}

func encodePreVoteResponse(b []byte, m *raft.RequestPreVoteResponse) []byte {
	b = appendHeader(b, &m.RPCHeader)
	b = wire.Uint(b, 4, m.Term)
	return wire.Bool(b, 5, m.Granted)
}

func decodePreVoteResponse(b []byte, m *raft.RequestPreVoteResponse) error {
	*m = raft.RequestPreVoteResponse{}
	return decode(b, &m.RPCHeader, func(num int, r *wire.Reader) {
		switch num {
		case 4:
			m.Term = r.Uint()
		case 5:
			m.Granted = r.Bool()
		}
	})
}

func encodeTimeoutNow(b []byte, m *raft.TimeoutNowRequest) []byte {
	return appendHeader(b, &m.RPCHeader)
}

func decodeTimeoutNow(b []byte) (*raft.TimeoutNowRequest, error) {
	m := &raft.TimeoutNowRequest{}
	return m, decode(b, &m.RPCHeader, func(int, *wire.Reader) {})
}

func encodeTimeoutNowResponse(b []byte, m *raft.TimeoutNowResponse) []byte {
	return appendHeader(b, &m.RPCHeader)
}

func decodeTimeoutNowResponse(b []byte, m *raft.TimeoutNowResponse) error {
	*m = raft.TimeoutNowResponse{}
	return decode(b, &m.RPCHeader, func(int, *wire.Reader) {})
}

func encodeSnapshot(b []byte, m *raft.InstallSnapshotRequest) []byte {
	b = appendHeader(b, &m.RPCHeader)
	b = wire.Int(b, 4, int64(m.SnapshotVersion))
	b = wire.Uint(b, 5, m.Term)
	b = wire.Text(b, 6, m.Leader)
	b = wire.Uint(b, 7, m.LastLogIndex)
	b = wire.Uint(b, 8, m.LastLogTerm)
	b = wire.Text(b, 9, m.Peers)
	b = wire.Text(b, 10, m.Configuration)
	b = wire.Uint(b, 11, m.ConfigurationIndex)
	return wire.Int(b, 12, m.Size)
}

// decodeSnapshot decodes the header of a snapshot. It rejects the version that has peers instead of a
// configuration: no node of this protocol sends it, and raft fails on it.
func decodeSnapshot(b []byte) (*raft.InstallSnapshotRequest, error) {
	m := &raft.InstallSnapshotRequest{}
	err := decode(b, &m.RPCHeader, func(num int, r *wire.Reader) {
		switch num {
		case 4:
			m.SnapshotVersion = raft.SnapshotVersion(r.Int())
		case 5:
			m.Term = r.Uint()
		case 6:
			m.Leader = r.Bytes()
		case 7:
			m.LastLogIndex = r.Uint()
		case 8:
			m.LastLogTerm = r.Uint()
		case 9:
			m.Peers = r.Bytes()
		case 10:
			m.Configuration = r.Bytes()
		case 11:
			m.ConfigurationIndex = r.Uint()
		case 12:
			m.Size = r.Int()
		}
	})
	if err != nil {
		return nil, err
	}
	if m.SnapshotVersion != 1 || m.Size < 0 {
		return nil, fmt.Errorf("%w: snapshot of version %d, %d bytes", ErrMalformed, m.SnapshotVersion, m.Size)
	}
	if err := checkLast(m.LastLogIndex, m.LastLogTerm, m.Term); err != nil {
		return nil, err
	}
	return m, checkConfiguration(m.Configuration)
}

func encodeSnapshotResponse(b []byte, m *raft.InstallSnapshotResponse) []byte {
	b = appendHeader(b, &m.RPCHeader)
	b = wire.Uint(b, 4, m.Term)
	return wire.Bool(b, 5, m.Success)
}

func decodeSnapshotResponse(b []byte, m *raft.InstallSnapshotResponse) error {
	*m = raft.InstallSnapshotResponse{}
	return decode(b, &m.RPCHeader, func(num int, r *wire.Reader) {
		switch num {
		case 4:
			m.Term = r.Uint()
		case 5:
			m.Success = r.Bool()
		}
	})
}
