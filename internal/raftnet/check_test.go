// SPDX-License-Identifier: Apache-2.0

package raftnet

import (
	"errors"
	"math"
	"net"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/rpc"
)

func TestPlausibleTermsAreAccepted(t *testing.T) {
	for newest, most := range map[uint64]uint64{
		0: maxTermLead, 7: maxTermLead + 7, 1 << 50: 1<<50 + maxTermLead, math.MaxUint64: math.MaxUint64,
		math.MaxUint64 - maxTermLead: math.MaxUint64,
	} {
		transport := New(Config{Newest: func() uint64 { return newest }})
		for _, term := range []uint64{0, 1, newest, most} {
			require.NoError(t, transport.checkTerm(term))
		}
		if most < math.MaxUint64 {
			require.ErrorIs(t, transport.checkTerm(most+1), ErrTerm)
			require.ErrorIs(t, transport.checkTerm(math.MaxUint64), ErrTerm)
		}
	}
}

// A pair is a transport and a peer. The test plays the peer's raft.
type pair struct {
	asks, asked *Transport
	refusals    chan error // of both
}

func paired(t *testing.T, newest uint64, test func(p pair)) {
	synctest.Test(t, func(t *testing.T) {
		network := memnet.New()
		p := pair{refusals: make(chan error, 9)}
		cfg := Config{
			Newest:  func() uint64 { return newest },
			Check:   func(entry []byte) error { return poison(entry) },
			Refused: func(_ rpc.Identity, _ net.Addr, err error) { p.refusals <- err },
		}
		l, err := network.Host("b").Listen("b:1")
		require.NoError(t, err)
		cfg.Self, cfg.Addr = serverID(2), "b:1"
		p.asked = New(cfg)
		server := rpc.Serve(l, rpc.ServerConfig{Party: rpc.Always(rpc.Identity{Cluster: 1, Member: 2}), Raft: p.asked.Serve})
		client := rpc.NewClient(network.Host("a"), rpc.Always(rpc.Identity{Cluster: 1, Member: 1}))
		cfg.Self, cfg.Addr, cfg.Client = serverID(1), "a:1", client
		p.asks = New(cfg)
		t.Cleanup(func() {
			require.NoError(t, p.asks.Close())
			require.NoError(t, p.asked.Close())
			require.NoError(t, client.Close())
			require.NoError(t, server.Close())
		})
		test(p)
	})
}

type poisonError struct{}

func (poisonError) Error() string { return "poison" }

func poison(entry []byte) error {
	if string(entry) == "poison" {
		return poisonError{}
	}
	return nil
}

// requests returns functions that each send one kind of request with a term, and return its error.
func requests(term uint64) map[string]func(pair) error {
	to, addr := serverID(2), raft.ServerAddress("b:1")
	head := raft.RPCHeader{ProtocolVersion: 3, ID: []byte(serverID(1)), Addr: []byte("a:1")}
	return map[string]func(pair) error{
		"heartbeat": func(p pair) error {
			return p.asks.AppendEntries(to, addr, &raft.AppendEntriesRequest{RPCHeader: head, Term: term}, &raft.AppendEntriesResponse{})
		},
		"append": func(p pair) error {
			return p.asks.AppendEntries(to, addr, &raft.AppendEntriesRequest{
				RPCHeader: head, Term: term, PrevLogEntry: 1, Entries: []*raft.Log{{Index: 2}},
			}, &raft.AppendEntriesResponse{})
		},
		"vote": func(p pair) error {
			return p.asks.RequestVote(to, addr, &raft.RequestVoteRequest{RPCHeader: head, Term: term}, &raft.RequestVoteResponse{})
		},
		"pre-vote": func(p pair) error {
			return p.asks.RequestPreVote(to, addr, &raft.RequestPreVoteRequest{RPCHeader: head, Term: term}, &raft.RequestPreVoteResponse{})
		},
		"snapshot": func(p pair) error {
			return p.asks.InstallSnapshot(to, addr, &raft.InstallSnapshotRequest{
				RPCHeader: head, SnapshotVersion: 1, Term: term, Configuration: configuration,
			}, &raft.InstallSnapshotResponse{}, nil)
		},
	}
}

func TestRequestsOfAbsurdTermsAreRejected(t *testing.T) {
	for name, request := range requests(math.MaxUint64) {
		paired(t, 5, func(p pair) {
			require.ErrorContains(t, request(p), ErrTerm.Error(), name)
			require.ErrorIs(t, <-p.refusals, ErrTerm, name)
			require.Empty(t, p.asked.consumer)
			require.Zero(t, p.asked.term)
		})
	}
}

func TestResponsesOfAbsurdTermsAreRejected(t *testing.T) {
	for name, request := range requests(5) {
		paired(t, 5, func(p pair) {
			go func() {
				r := <-p.asked.consumer
				r.Respond(respond(r.Command, math.MaxUint64), nil)
			}()
			require.ErrorIs(t, request(p), ErrTerm, name)
			require.ErrorIs(t, <-p.refusals, ErrTerm, name)
			require.LessOrEqual(t, p.asks.term, uint64(5))
		})
	}
}

func respond(command any, term uint64) any {
	switch command.(type) {
	case *raft.AppendEntriesRequest:
		return &raft.AppendEntriesResponse{Term: term}
	case *raft.RequestVoteRequest:
		return &raft.RequestVoteResponse{Term: term}
	case *raft.RequestPreVoteRequest:
		return &raft.RequestPreVoteResponse{Term: term}
	}
	return &raft.InstallSnapshotResponse{Term: term}
}

func TestEntriesAreCheckedOnArrival(t *testing.T) {
	paired(t, 5, func(p pair) {
		req := &raft.AppendEntriesRequest{RPCHeader: p.asks.header, Term: 5, Entries: []*raft.Log{
			{Index: 1, Type: raft.LogNoop, Data: []byte("poison")}, {Index: 2, Type: raft.LogCommand, Data: []byte("poison")},
		}}
		err := p.asks.AppendEntries(serverID(2), "b:1", req, &raft.AppendEntriesResponse{})
		require.ErrorContains(t, err, "entry 2 of term 0: poison", "the leader receives the reason")
		require.True(t, errors.As(<-p.refusals, &poisonError{}))
		require.Empty(t, p.asked.consumer)
	})
}
