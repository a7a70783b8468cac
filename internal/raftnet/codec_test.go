// SPDX-License-Identifier: Apache-2.0

//lint:file-ignore SA1019 raft still reads the fields that it calls deprecated

package raftnet

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/wire"
)

var (
	header        = raft.RPCHeader{ProtocolVersion: 3, ID: []byte("0000000000000001"), Addr: []byte("n1:1")}
	configuration = raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a:1"}}})
)

var fullAppend = &raft.AppendEntriesRequest{
	RPCHeader: header, Term: 5, Leader: []byte("n1:1"), PrevLogEntry: 9, PrevLogTerm: 4, LeaderCommitIndex: 13,
	Entries: []*raft.Log{
		{Index: 10, Term: 4, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("ext"), AppendedAt: time.Unix(1700000000, 5)},
		{Index: 11, Term: 5, Type: raft.LogNoop},
		{Index: 12, Term: 5, Type: raft.LogConfiguration, Data: configuration},
		{Index: 13, Term: 5, Type: raft.LogBarrier, AppendedAt: time.Unix(-5, 0)},
	},
}

var fullSnapshot = &raft.InstallSnapshotRequest{
	RPCHeader: header, SnapshotVersion: 1, Term: 3, Leader: []byte("n1:1"), LastLogIndex: 8, LastLogTerm: 2, Peers: []byte("p"),
	Configuration: configuration, ConfigurationIndex: 1, Size: math.MaxInt64,
}

// messages returns values of every kind, empty and full.
func messages() []any {
	return []any{
		&raft.AppendEntriesRequest{}, fullAppend,
		&raft.RequestVoteRequest{},
		&raft.RequestVoteRequest{RPCHeader: header, Term: 4, Candidate: []byte("c"), LastLogIndex: 2, LastLogTerm: 3, LeadershipTransfer: true},
		&raft.RequestPreVoteRequest{},
		&raft.RequestPreVoteRequest{RPCHeader: header, Term: 4, LastLogIndex: 2, LastLogTerm: 3},
		&raft.TimeoutNowRequest{}, &raft.TimeoutNowRequest{RPCHeader: header},
		fullSnapshot,
		&raft.AppendEntriesResponse{},
		&raft.AppendEntriesResponse{RPCHeader: header, Term: 1, LastLog: 2, Success: true, NoRetryBackoff: true},
		&raft.RequestVoteResponse{},
		&raft.RequestVoteResponse{RPCHeader: header, Term: 1, Peers: []byte("p"), Granted: true},
		&raft.RequestPreVoteResponse{},
		&raft.RequestPreVoteResponse{RPCHeader: header, Term: 1, Granted: true},
		&raft.TimeoutNowResponse{}, &raft.TimeoutNowResponse{RPCHeader: header},
		&raft.InstallSnapshotResponse{},
		&raft.InstallSnapshotResponse{RPCHeader: header, Term: 1, Success: true},
	}
}

// encode returns the bytes of a message, and the number of its kind for redecode.
func encode(m any) (kind byte, b []byte) {
	switch m := m.(type) {
	case *raft.AppendEntriesRequest:
		return methodAppend, encodeAppend(nil, m)
	case *raft.RequestVoteRequest:
		return methodVote, encodeVote(nil, m)
	case *raft.RequestPreVoteRequest:
		return methodPreVote, encodePreVote(nil, m)
	case *raft.TimeoutNowRequest:
		return methodTimeoutNow, encodeTimeoutNow(nil, m)
	case *raft.InstallSnapshotRequest:
		return methodSnapshot, encodeSnapshot(nil, m)
	case *raft.AppendEntriesResponse:
		return 101, encodeAppendResponse(nil, m)
	case *raft.RequestVoteResponse:
		return 102, encodeVoteResponse(nil, m)
	case *raft.RequestPreVoteResponse:
		return 103, encodePreVoteResponse(nil, m)
	case *raft.TimeoutNowResponse:
		return 104, encodeTimeoutNowResponse(nil, m)
	case *raft.InstallSnapshotResponse:
		return 105, encodeSnapshotResponse(nil, m)
	}
	return 0, nil
}

func redecode(kind byte, b []byte) (any, error) {
	// Decoding must overwrite the previous contents of a response.
	switch kind {
	case 101:
		m := &raft.AppendEntriesResponse{RPCHeader: header, Term: 7, LastLog: 7, Success: true, NoRetryBackoff: true}
		return m, decodeAppendResponse(b, m)
	case 102:
		m := &raft.RequestVoteResponse{RPCHeader: header, Term: 7, Peers: []byte("7"), Granted: true}
		return m, decodeVoteResponse(b, m)
	case 103:
		m := &raft.RequestPreVoteResponse{RPCHeader: header, Term: 7, Granted: true}
		return m, decodePreVoteResponse(b, m)
	case 104:
		m := &raft.TimeoutNowResponse{RPCHeader: header}
		return m, decodeTimeoutNowResponse(b, m)
	case 105:
		m := &raft.InstallSnapshotResponse{RPCHeader: header, Term: 7, Success: true}
		return m, decodeSnapshotResponse(b, m)
	}
	return decodeRequest(kind, b)
}

func TestMessagesRoundTrip(t *testing.T) {
	for _, m := range messages() {
		kind, b := encode(m)
		again, err := redecode(kind, b)
		require.NoError(t, err, "%T", m)
		require.Equal(t, m, again)
	}
}

func TestMalformedMessagesAreRejected(t *testing.T) {
	appendOf := func(prev uint64, entries ...*raft.Log) []byte {
		return encodeAppend(nil, &raft.AppendEntriesRequest{PrevLogEntry: prev, Entries: entries})
	}
	snapshotOf := func(change func(*raft.InstallSnapshotRequest)) []byte {
		m := *fullSnapshot
		change(&m)
		return encodeSnapshot(nil, &m)
	}
	many := make([]*raft.Log, maxEntries+1)
	for i := range many {
		many[i] = &raft.Log{Index: uint64(i) + 1}
	}
	tests := map[string]struct {
		method byte
		b      []byte
	}{
		"unknown method":             {99, nil},
		"chunk without a snapshot":   {methodChunk, []byte("x")},
		"entries with a gap":         {methodAppend, appendOf(4, &raft.Log{Index: 6})},
		"entries out of order":       {methodAppend, appendOf(4, &raft.Log{Index: 5}, &raft.Log{Index: 5})},
		"more than raft sends":       {methodAppend, appendOf(0, many...)},
		"obsolete type":              {methodAppend, appendOf(4, &raft.Log{Index: 5, Type: raft.LogAddPeerDeprecated})},
		"unknown type":               {methodAppend, appendOf(4, &raft.Log{Index: 5, Type: 77})},
		"unreadable configuration":   {methodAppend, appendOf(4, &raft.Log{Index: 5, Type: raft.LogConfiguration, Data: []byte{0x9f}})},
		"snapshot with peers":        {methodSnapshot, snapshotOf(func(m *raft.InstallSnapshotRequest) { m.SnapshotVersion = 0 })},
		"snapshot of negative size":  {methodSnapshot, snapshotOf(func(m *raft.InstallSnapshotRequest) { m.Size = -1 })},
		"snapshot, no configuration": {methodSnapshot, snapshotOf(func(m *raft.InstallSnapshotRequest) { m.Configuration = nil })},
		"snapshot without voters": {methodSnapshot, snapshotOf(func(m *raft.InstallSnapshotRequest) {
			m.Configuration = raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Suffrage: raft.Nonvoter}}})
		})},
		"snapshot of a later term":    {methodSnapshot, snapshotOf(func(m *raft.InstallSnapshotRequest) { m.LastLogTerm = m.Term + 1 })},
		"snapshot of an absurd index": {methodSnapshot, snapshotOf(func(m *raft.InstallSnapshotRequest) { m.LastLogIndex = math.MaxUint64 })},
		"a member twice": {methodAppend, appendOf(4, &raft.Log{Index: 5, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(
			raft.Configuration{Servers: []raft.Server{{ID: "a"}, {ID: "a"}}})})},
		"entries after the last index": {methodAppend, appendOf(math.MaxUint64, &raft.Log{Index: 0})},
		"an absurd previous entry":     {methodAppend, appendOf(math.MaxUint64 - 1)},
		"an entry of a later term":     {methodAppend, appendOf(4, &raft.Log{Index: 5, Term: 1})},
		"terms that fall": {methodAppend, encodeAppend(nil, &raft.AppendEntriesRequest{
			Term: 9, PrevLogEntry: 4, PrevLogTerm: 3, Entries: []*raft.Log{{Index: 5, Term: 2}},
		})},
		"a later previous term":  {methodAppend, encodeAppend(nil, &raft.AppendEntriesRequest{Term: 9, PrevLogEntry: 4, PrevLogTerm: 10})},
		"a commit not covered":   {methodAppend, encodeAppend(nil, &raft.AppendEntriesRequest{Term: 9, PrevLogEntry: 4, LeaderCommitIndex: 5})},
		"a vote for absurd logs": {methodVote, encodeVote(nil, &raft.RequestVoteRequest{Term: 9, LastLogIndex: math.MaxUint64})},
		"a vote for later logs":  {methodVote, encodeVote(nil, &raft.RequestVoteRequest{Term: 9, LastLogTerm: 10})},
		"a pre-vote for absurd logs": {methodPreVote, encodePreVote(nil, &raft.RequestPreVoteRequest{
			Term: 9, LastLogIndex: math.MaxUint64,
		})},
		"a pre-vote for later logs": {methodPreVote, encodePreVote(nil, &raft.RequestPreVoteRequest{Term: 9, LastLogTerm: 10})},
		"cut short":                 {methodVote, encodeVote(nil, &raft.RequestVoteRequest{RPCHeader: header})[:5]},
	}
	for name, test := range tests {
		_, err := decodeRequest(test.method, test.b)
		require.True(t, errors.Is(err, ErrMalformed) || errors.Is(err, wire.ErrMalformed), "%s: %v", name, err)
	}
}

// FuzzMessages feeds every decoder. None may panic, and every accepted message must survive the round
// trip.
func FuzzMessages(f *testing.F) {
	for _, m := range messages() {
		kind, b := encode(m)
		f.Add(kind, b)
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		m, err := redecode(kind, b)
		if err != nil {
			return
		}
		_, b = encode(m)
		again, err := redecode(kind, b)
		require.NoError(t, err)
		_, c := encode(again)
		require.Equal(t, b, c)
	})
}
