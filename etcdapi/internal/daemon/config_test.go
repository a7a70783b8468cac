// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
)

func configOf(t *testing.T, args ...string) coterie.Config {
	s, err := Parse(args, nil)
	require.NoError(t, err)
	p, err := s.newPlan(t.Context())
	require.NoError(t, err)
	cfg, err := s.config(p)
	require.NoError(t, err)
	return cfg
}

func TestNodeHasTheDefaultsOfEtcd(t *testing.T) {
	require.Equal(t, coterie.Config{
		Cluster: "etcd-cluster", Name: "default", Dir: "default.etcd/member", Addr: "localhost:2380", Advertise: "localhost:2380",
		Founders: []coterie.Founder{{Name: "default", Addr: "localhost:2380"}}, ElectionTimeout: time.Second, SnapshotEntries: 10_000,
		MaxTxnOps: 128, MaxRequestBytes: 1536 << 10, QuotaBytes: 2 << 30, Retention: coterie.Retention{Age: -1, Revisions: -1, Bytes: -1},
	}, configOf(t))
}

func TestFlagsConfigureTheNode(t *testing.T) {
	cfg := configOf(t, "--auto-compaction-retention=2h", "--quota-backend-bytes=-1", "--listen-peer-urls=http://127.0.0.1:2381")
	require.Equal(t, coterie.Retention{Age: 2 * time.Hour, Revisions: -1, Bytes: -1}, cfg.Retention)
	require.Zero(t, cfg.QuotaBytes, "no bound")
	require.Equal(t, "127.0.0.1:2381", cfg.Addr)
	cfg = configOf(t, "--auto-compaction-mode=revision", "--auto-compaction-retention=100", "--quota-backend-bytes=1000")
	require.Equal(t, coterie.Retention{Age: -1, Revisions: 100, Bytes: -1}, cfg.Retention)
	require.EqualValues(t, 1000, cfg.QuotaBytes)
}

// A member that listens on every address advertises that of its machine.
func TestDefaultHostIsAdvertised(t *testing.T) {
	host, err := defaultHost()
	if err != nil {
		t.Skip("this machine reaches no other: ", err)
	}
	require.Equal(t, host+":2381", configOf(t, "--listen-peer-urls=http://0.0.0.0:2381").Advertise)
}

func TestMovedMemberAdvertisesItsNewURL(t *testing.T) {
	p := bootstrap.Plan{Name: "a", Advertise: "10.0.0.1:2380", Founders: []coterie.Founder{{Name: "a", Addr: "10.0.0.1:2380"}, {Name: "b", Addr: "10.0.0.2:2380"}}}
	p.Move("10.0.0.9:2380")
	require.Equal(t, "10.0.0.9:2380", p.Advertise)
	require.Equal(t, []coterie.Founder{{Name: "a", Addr: "10.0.0.9:2380"}, {Name: "b", Addr: "10.0.0.2:2380"}}, p.Founders)
	p.BeAlone()
	require.Equal(t, []coterie.Founder{{Name: "a", Addr: "10.0.0.9:2380"}}, p.Founders)
}

func TestTokensAreConfigured(t *testing.T) {
	for text, args := range map[string]string{"": "--auth-token=simple", "--auth-token: etcdapi: JWT": "--auth-token=jwt", "does not begin": "--auth-token=other"} {
		s, err := Parse([]string{args}, nil)
		require.NoError(t, err)
		_, err = s.userOptions()
		if text == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, text)
		}
	}
}
