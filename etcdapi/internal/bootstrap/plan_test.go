// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func TestSingleMemberNeedsNoList(t *testing.T) {
	p, err := New(Flags{Name: "a", Token: "t", AdvertiseURLs: []string{"http://localhost:2380"}})
	require.NoError(t, err)
	require.Equal(t, Plan{
		Cluster: "t", Name: "a", Advertise: "localhost:2380", Founders: []coterie.Founder{{Name: "a", Addr: "localhost:2380"}},
	}, p)
	cfg := p.Config("data")
	require.Equal(t, filepath.Join("data", "member"), cfg.Dir)
	require.Equal(t, "t", cfg.Cluster)
}

func TestFoundersComeFromTheList(t *testing.T) {
	f := Flags{Name: "b", Token: "t", Members: "a=https://10.0.0.1:2380,b=https://10.0.0.2:2380", AdvertiseURLs: []string{"https://10.0.0.2:2380"}}
	p, err := New(f)
	require.NoError(t, err)
	require.Equal(t, []coterie.Founder{{Name: "a", Addr: "10.0.0.1:2380"}, {Name: "b", Addr: "10.0.0.2:2380"}}, p.Founders)
	require.Empty(t, p.Join)
}

func TestJoiningMemberIsNamedByItsAddress(t *testing.T) {
	f := Flags{Name: "b", Members: "a=http://10.0.0.1:2380,b=http://10.0.0.2:2380", State: StateExisting, AdvertiseURLs: []string{"http://10.0.0.2:2380"}}
	p, err := New(f)
	require.NoError(t, err)
	require.Equal(t, Plan{Name: "10.0.0.2:2380", Advertise: "10.0.0.2:2380", Join: []string{"10.0.0.1:2380"}}, p)
}

func TestWrongMembersAreRejected(t *testing.T) {
	own := []string{"http://10.0.0.1:2380"}
	for name, c := range map[string]struct {
		f    Flags
		text string
	}{
		"not listed":     {Flags{Members: "b=http://10.0.0.2:2380"}, `couldn't find local name "a"`},
		"other URLs":     {Flags{Members: "a=http://10.0.0.9:2380"}, "they must be the same"},
		"twice":          {Flags{Members: "a=http://10.0.0.1:2380,b=http://10.0.0.1:2380"}, "duplicate url"},
		"no URL":         {Flags{Members: "a=http://10.0.0.1:2380,b"}, `"b" is not a member: give each as name=URL`},
		"no scheme":      {Flags{Members: "a=10.0.0.1:2380"}, "--initial-cluster: "},
		"unix":           {Flags{Members: "a=unix://a"}, "must be http or https"},
		"alone":          {Flags{State: StateExisting}, "needs the other members"},
		"state":          {Flags{State: "old"}, `--initial-cluster-state is "old"`},
		"no port":        {Flags{AdvertiseURLs: []string{"http://10.0.0.1"}}, "--initial-advertise-peer-urls: "},
		"nothing at all": {Flags{AdvertiseURLs: []string{}}, "--initial-advertise-peer-urls: "},
	} {
		c.f.Name = "a"
		if c.f.AdvertiseURLs == nil {
			c.f.AdvertiseURLs = own
		}
		_, err := New(c.f)
		require.ErrorContains(t, err, c.text, name)
	}
}

func TestPlanIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a.etcd")
	_, ok, err := Read(dir)
	require.NoError(t, err)
	require.False(t, ok)
	p := Plan{Cluster: "t", Name: "a", Advertise: "localhost:2380", Join: []string{"localhost:2381"}}
	require.NoError(t, p.Save(dir))
	require.NoError(t, p.Save(dir))
	kept, ok, err := Read(dir)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, p, kept)
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir, recordName), []byte("{"), 0o600))
	_, _, err = Read(dir)
	require.ErrorContains(t, err, "is damaged")
}

// On a later start the list of members only adds addresses; it does not change the members.
func TestListHintsAtAddresses(t *testing.T) {
	joined := Plan{Name: "10.0.0.2:2380", Advertise: "10.0.0.2:2380", Join: []string{"10.0.0.1:2380"}}
	joined.Hint("a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380")
	require.Equal(t, []string{"10.0.0.1:2380", "10.0.0.3:2380"}, joined.Join)
	founder := Plan{Name: "a", Advertise: "10.0.0.1:2380", Founders: []coterie.Founder{{Name: "a", Addr: "10.0.0.1:2380"}, {Name: "b", Addr: "10.0.0.2:2380"}}}
	founder.Hint("a=http://10.0.0.8:2380,b=http://10.0.0.9:2380,c=http://10.0.0.3:2380")
	founder.Hint("no list")
	founder.Hint("")
	require.Equal(t, []coterie.Founder{{Name: "a", Addr: "10.0.0.1:2380"}, {Name: "b", Addr: "10.0.0.9:2380"}}, founder.Founders)
	require.Empty(t, founder.Join)
}
