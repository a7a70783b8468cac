// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/internal/bootstrap"
)

// The directory says which members there are. The flags of a later start say where they are now.
func TestLaterStartTakesAddressesOfFlags(t *testing.T) {
	dir := t.TempDir()
	first, err := bootstrap.New(bootstrap.Flags{
		Name: "a", Token: "t", Members: "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380", AdvertiseURLs: []string{"http://10.0.0.1:2380"},
	})
	require.NoError(t, err)
	require.NoError(t, first.Save(dir))
	planOf := func(args ...string) (bootstrap.Plan, error) {
		s, err := Parse(append([]string{"--data-dir", dir}, args...), nil)
		require.NoError(t, err)
		return s.plan(t.Context(), slog.New(slog.DiscardHandler))
	}
	p, err := planOf()
	require.NoError(t, err)
	require.Equal(t, first, p, "defaults of flags change nothing")

	p, err = planOf("--initial-advertise-peer-urls=http://10.0.0.8:2380", "--initial-cluster-token=t",
		"--initial-cluster=a=http://10.0.0.8:2380,b=http://10.0.0.9:2380,c=http://10.0.0.3:2380")
	require.NoError(t, err)
	require.Equal(t, "10.0.0.8:2380", p.Advertise)
	require.Equal(t, []coterie.Founder{{Name: "a", Addr: "10.0.0.8:2380"}, {Name: "b", Addr: "10.0.0.9:2380"}}, p.Founders)

	_, err = planOf("--initial-cluster-token=other")
	require.ErrorIs(t, err, coterie.ErrClusterMismatch)
}
