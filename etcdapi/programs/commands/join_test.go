// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/coterie-kv/coterie/etcdapi/internal/processtest"
)

// joinEtcd starts the member that was added to an etcd, and returns its endpoint.
func joinEtcd(t testing.TB, s *store) string {
	t.Helper()
	all, err := s.client.MemberList(t.Context())
	require.NoError(t, err)
	var members []string
	for _, m := range all.Members {
		name := m.Name
		if name == "" {
			name = "etcd4"
		}
		members = append(members, name+"="+m.PeerURLs[0])
	}
	peers, err := types.NewURLs([]string{s.values["peer"]})
	require.NoError(t, err)
	client := freeURLs(t, 1)
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "etcd4", t.TempDir()
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = client, client
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = peers, peers
	cfg.InitialCluster, cfg.ClusterState = strings.Join(members, ","), embed.ClusterStateFlagExisting
	cfg.LogLevel, cfg.UnsafeNoFsync = "panic", true
	e, err := embed.StartEtcd(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { closeEtcd(e) })
	s.mask("NAME3", "etcd4")
	return client[0].Host
}

// joinNode starts the node that was added to a cluster, and returns its endpoint.
func joinNode(t testing.TB, s *store, learner bool) string {
	t.Helper()
	all, err := s.client.MemberList(t.Context())
	require.NoError(t, err)
	cfg := setup{}.config()
	cfg.Addr, cfg.NonVoter = strings.TrimPrefix(s.values["peer"], "http://"), learner
	for _, m := range all.Members {
		if m.Name != "" {
			cfg.Join = append(cfg.Join, strings.TrimPrefix(m.PeerURLs[0], "http://"))
		}
	}
	s.mask("NAME3", cfg.Addr)
	return setup{}.serve(t, openNode(t, cfg))
}

// awaitGrowth waits until members can be added: before that, an etcd's cluster is not healthy enough.
func (p *pair) awaitGrowth() {
	p.Helper()
	require.Eventually(p, func() bool {
		r, err := p.stores[0].client.MemberAddAsLearner(p.Context(), []string{"http://127.0.0.1:9"})
		if err == nil {
			_, err = p.stores[0].client.MemberRemove(p.Context(), r.Member.ID)
		}
		return err == nil
	}, 20*time.Second, 100*time.Millisecond)
}

// A member is added, started, promoted if it is a learner, made the leader, and removed.
func TestMemberJoins(t *testing.T) {
	for kind, flags := range map[string][]string{"learner": {"--learner"}, "voter": nil} {
		if kind == "voter" && !*long {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := start(t, 3, false).masking(`MEMBER\d`, "MEMBER", `\badded\b`, "MEMBER", `(etcd4=http://[\d.:]+|etcd4=PEER3),(.*)"`, `$2,$1"`)
			p.awaitGrowth()
			for _, s := range p.stores {
				s.values["peer"] = "http://" + processtest.FreeAddr(t)
				s.mask("PEER3", s.values["peer"])
			}
			p.learn("added", `^Member *(\w+) added`, append([]string{"member", "add", "etcd4", "--peer-urls={peer}"}, flags...)...)
			if kind == "learner" {
				p.fails("member", "promote", "{added}")
			}
			for i, s := range p.stores {
				if i == 0 {
					s.values["joined"] = joinEtcd(t, s)
				} else {
					s.values["joined"] = joinNode(t, s, kind == "learner")
				}
				s.mask("ENDPOINT3", s.values["joined"])
				s.mask("CLIENT3", "http://ENDPOINT3")
				s.awaitMember(t, kind == "learner")
				s.values["all"] = strings.Join(append(slices.Clone(s.endpoints), s.values["joined"]), ",")
			}
			p.unordered().same("member", "list", "--write-out=fields")
			p.unordered().same("member", "list", "--write-out=table")
			figures(p).tabled("endpoint", "status", "--endpoints={joined}")
			if kind == "learner" {
				p.same("member", "promote", "{added}")
			}
			p.fails("member", "promote", "{added}")
			p.unordered().same("member", "list")
			p.prints("OK\n", "put", "k", "v", "--endpoints={joined}")
			p.prints("k\nv\n", "get", "k", "--endpoints={joined}")
			p.same("move-leader", "{added}", "--endpoints={all}")
			p.same("move-leader", "{member0}", "--endpoints={all}")
			p.same("member", "remove", "{added}")
			p.unordered().same("member", "list")
		})
	}
}

// awaitMember waits until the member that has joined is listed, and has what the leader has.
func (s *store) awaitMember(t testing.TB, learner bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		all, err := s.client.MemberList(t.Context())
		if err != nil {
			return false
		}
		i := slices.IndexFunc(all.Members, func(m *pb.Member) bool { return fmt.Sprintf("%x", m.ID) == s.values["added"] })
		if m := all.Members[i]; m.Name == "" || len(m.ClientURLs) == 0 || m.IsLearner != learner {
			return false
		}
		leader, err := s.client.Status(t.Context(), s.endpoints[0])
		if err != nil {
			return false
		}
		joined, err := s.client.Status(t.Context(), s.values["joined"])
		return err == nil && joined.RaftAppliedIndex >= leader.RaftAppliedIndex &&
			joined.StorageVersion == leader.StorageVersion // an etcd's is that of an older etcd at first
	}, 30*time.Second, 50*time.Millisecond, s.name)
}
