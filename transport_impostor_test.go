// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/raftnet"
	"github.com/coterie-kv/coterie/internal/rpc"
)

// An impostor sends raft messages in the name of a member.
type impostor struct {
	*raftnet.Transport
	header raft.RPCHeader
}

// withImpostor runs a test with a cluster and an impostor, and then checks that all nodes still work.
func withImpostor(t *testing.T, test func(t *testing.T, c *coterietest.Cluster, as impostor), opts ...coterietest.Option) {
	network := memnet.New()
	opts = append(opts, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Network = network.Host(cfg.Name) }))
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "v")
		client := rpc.NewClient(network.Host("stranger"), posing(c.Leader().ID(), c.Leader()))
		id := c.Leader().ID().String()
		as := impostor{
			raftnet.New(raftnet.Config{Self: raft.ServerID(id), Addr: raft.ServerAddress(id), Client: client}),
			raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(id)},
		}
		test(t, c, as)
		require.NoError(t, as.Close())
		require.NoError(t, client.Close())
		time.Sleep(time.Minute)
		for i := range 3 {
			ready(t, c.Node(i))
			put(t, c.Node(i), "k", "v")
		}
		sameState(t, c)
		for i := range 3 {
			c.Restart(i)
			ready(t, c.Node(i))
		}
	}, opts...)
}

// send sends a node entries that follow its log, in a term. It returns the node's answer.
func (as impostor) send(to *coterie.Node, term uint64, data ...[]byte) error {
	s := to.Status()
	req := &raft.AppendEntriesRequest{RPCHeader: as.header, Term: term, PrevLogEntry: s.Durable, PrevLogTerm: s.Term}
	for i, d := range data {
		req.Entries = append(req.Entries, &raft.Log{Index: s.Durable + uint64(i) + 1, Term: term, Type: raft.LogCommand, Data: d})
	}
	return as.AppendEntries(raft.ServerID(to.ID().String()), raft.ServerAddress(s.Addr), req, &raft.AppendEntriesResponse{})
}

func TestPoisonEntryStopsNoNode(t *testing.T) {
	sound := command.Single(&command.Proposal{Proposer: 7, Command: command.Command{Register: true}})
	newer := append([]byte(nil), sound...)
	newer[0]++
	empty := command.Single(&command.Proposal{Proposer: 7, Command: command.Command{Op: command.Op{Put: &command.Put{}}}})
	unknown := command.Single(&command.Proposal{Proposer: 7})
	for says, entry := range map[string][]byte{
		"corrupt log entry at offset 0":            nil,
		"corrupt log entry at offset 1":            sound[:len(sound)-1],
		"log entry has format version 2":           newer,
		"unknown kind of command":                  unknown,
		"proposal at offset 5: command: empty key": empty,
	} {
		t.Run(says, func(t *testing.T) {
			var log record
			withImpostor(t, func(t *testing.T, c *coterietest.Cluster, as impostor) {
				term := c.Leader().Status().Term
				for i := range 3 {
					if n := c.Node(i); n != c.Leader() {
						require.ErrorContains(t, as.send(n, term+1, sound, entry), says)
						synctest.Wait()
						log.few(t, "message refused", says, "node="+n.Status().Name)
					}
				}
			}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Logger = log.logger() }))
		})
	}
}

func TestAbsurdTermsAreRejected(t *testing.T) {
	for name, send := range map[string]func(as impostor, to raft.ServerID, at raft.ServerAddress) error{
		"append": func(as impostor, to raft.ServerID, at raft.ServerAddress) error {
			req := &raft.AppendEntriesRequest{RPCHeader: as.header, Term: math.MaxUint64}
			return as.AppendEntries(to, at, req, &raft.AppendEntriesResponse{})
		},
		"vote": func(as impostor, to raft.ServerID, at raft.ServerAddress) error {
			req := &raft.RequestVoteRequest{RPCHeader: as.header, Term: math.MaxUint64, LastLogIndex: 1 << 60, LeadershipTransfer: true}
			return as.RequestVote(to, at, req, &raft.RequestVoteResponse{})
		},
		"pre-vote": func(as impostor, to raft.ServerID, at raft.ServerAddress) error {
			req := &raft.RequestPreVoteRequest{RPCHeader: as.header, Term: math.MaxUint64, LastLogIndex: 1 << 60}
			return as.RequestPreVote(to, at, req, &raft.RequestPreVoteResponse{})
		},
		"snapshot": func(as impostor, to raft.ServerID, at raft.ServerAddress) error {
			req := &raft.InstallSnapshotRequest{
				RPCHeader: as.header, SnapshotVersion: 1, Term: math.MaxUint64,
				Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: to, Address: at}}}),
			}
			return as.InstallSnapshot(to, at, req, &raft.InstallSnapshotResponse{}, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			withImpostor(t, func(t *testing.T, c *coterietest.Cluster, as impostor) {
				before := c.Leader().Status().Term
				for i := range 3 {
					to := c.Node(i).Status()
					require.Error(t, send(as, raft.ServerID(to.ID.String()), raft.ServerAddress(to.Addr)))
				}
				time.Sleep(time.Minute)
				require.Equal(t, before, c.Leader().Status().Term)
			})
		})
	}
}

// A node without data accepts any term of the cluster that lets it in.
func TestJoinOfAClusterWithALateTerm(t *testing.T) {
	withImpostor(t, func(t *testing.T, c *coterietest.Cluster, as impostor) {
		for range 3 {
			leader := c.Leader()
			_ = as.send(leader, leader.Status().Term+1<<39)
			time.Sleep(time.Minute)
		}
		require.Greater(t, c.Leader().Status().Term, uint64(1<<40))
		i := c.Join(nil)
		ready(t, c.Node(i))
		awaitVote(t, c.Node(i), "node4")
		c.Restart(i)
		ready(t, c.Node(i))
	})
}

// A node that keeps an undamaged snapshot which makes no state would fail at every start.
func TestPoisonSnapshotStopsNoNode(t *testing.T) {
	var body bytes.Buffer
	w := command.NewBlockWriter(&body)
	require.NoError(t, w.Record(func(b []byte) []byte { return append(b, "garbage"...) }))
	_, err := w.Close()
	require.NoError(t, err)
	for name, inMemory := range map[string]bool{"files": false, "memory": true} {
		t.Run(name, func(t *testing.T) {
			var log record
			withImpostor(t, func(t *testing.T, c *coterietest.Cluster, as impostor) {
				to, term := c.Follower().Status(), c.Leader().Status().Term
				id, at := raft.ServerID(to.ID.String()), raft.ServerAddress(to.Addr)
				err := as.InstallSnapshot(id, at, &raft.InstallSnapshotRequest{
					RPCHeader: as.header, SnapshotVersion: 1, Term: term, LastLogIndex: to.Durable + 100, LastLogTerm: term,
					Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: id, Address: at}}}),
					Size:          int64(body.Len()),
				}, &raft.InstallSnapshotResponse{}, bytes.NewReader(body.Bytes()))
				require.ErrorContains(t, err, "snapshot refused")
				synctest.Wait()
				log.few(t, "message refused", "snapshot refused", "node="+to.Name)
			}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Logger, cfg.InMemory = log.logger(), inMemory }))
		})
	}
}
