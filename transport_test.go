// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/memnet"
	"github.com/coterie-kv/coterie/internal/rpc"
)

// propose is the method of the call with which a follower hands an entry to its leader.
const propose = 2

// posing is the handshake of a node that claims to be a member, one that joined later than anything that to
// has applied. Only TLS keeps such a node out.
func posing(as coterie.MemberID, to *coterie.Node) rpc.Party {
	return rpc.Always(rpc.Identity{Cluster: uint64(to.Status().ClusterID), Member: uint64(as), Since: math.MaxUint64})
}

// An entry that a node cannot apply would stop all nodes for good. So the leader appends only sound proposals
// of members.
func TestProposalsOfOtherNodesAreChecked(t *testing.T) {
	network := memnet.New()
	onNetwork := coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.Network = network.Host(cfg.Name) })
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, member := c.Leader(), c.Follower()
		call := func(caller coterie.MemberID, entry []byte) error {
			client := rpc.NewClient(network.Host("stranger"), posing(caller, leader))
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := client.Call(ctx, rpc.Peer{ID: uint64(leader.ID()), Addr: leader.Status().Addr}, propose, entry)
			return err
		}
		stranger := rpc.NewClient(network.Host("stranger"), rpc.Always(rpc.Identity{Cluster: uint64(leader.Status().ClusterID), Member: 42}))
		defer stranger.Close()
		_, err := stranger.Call(t.Context(), rpc.Peer{ID: uint64(leader.ID()), Addr: leader.Status().Addr}, propose, nil)
		require.ErrorContains(t, err, "not a member", "nobody's member ID")

		sound := command.Single(&command.Proposal{Proposer: 7, Command: command.Command{Register: true}})
		require.NoError(t, call(member.ID(), sound))
		of := func(c command.Command) []byte {
			return command.Single(&command.Proposal{Proposer: 7, Seq: 1, Command: c})
		}
		for name, entry := range map[string][]byte{
			"nothing":       nil,
			"garbage":       []byte("garbage"),
			"cut off":       sound[:len(sound)-1],
			"the cluster's": command.Single(&command.Proposal{Command: command.Command{Compact: &command.Compact{Revision: 1}}}),
			"a member":      of(command.Command{Enroll: &command.Enroll{ID: 1, Term: 1}}),
			"a term":        of(command.Command{Term: true}),
			"an expiry":     of(command.Command{Expire: &command.Expire{IDs: []int64{1}, Term: 1}}),
			"an empty key":  of(command.Command{Op: command.Op{Put: &command.Put{}}}),
			"no TTL":        of(command.Command{Grant: &command.Grant{ID: 1}}),
			"a key put twice": of(command.Command{Op: command.Op{Txn: &command.Txn{Then: []command.Op{
				{Put: &command.Put{Key: "k"}}, {Put: &command.Put{Key: "k"}},
			}}}}),
		} {
			var remote *rpc.RemoteError
			require.ErrorAs(t, call(member.ID(), entry), &remote, name)
		}
		random := rand.NewChaCha8([32]byte{1})
		for range 1000 {
			entry := make([]byte, 40)
			_, _ = random.Read(entry) // it never fails
			require.Error(t, call(member.ID(), entry))
		}
		require.EqualValues(t, 2, put(t, member, "k", "v").Revision)
		sameState(t, c)
	}, onNetwork)
}
