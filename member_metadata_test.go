// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/datadir"
)

// zone returns the metadata of a node in a zone.
func zone(name string) map[string]string { return map[string]string{"zone": name} }

// awaitMetadata waits until a node shows the metadata of a member.
func awaitMetadata(t *testing.T, n *coterie.Node, name string, want map[string]string) {
	t.Helper()
	for range 600 {
		if fmt.Sprint(members(t, n)[name].Metadata) == fmt.Sprint(want) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s has metadata %v after a minute", name, members(t, n)[name].Metadata)
}

// inZones gives each node of a cluster its zone.
func inZones() coterietest.Option {
	return coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		if cfg.Metadata == nil {
			cfg.Metadata = zone(fmt.Sprint("zone", i+1))
		}
	})
}

func TestEveryNodeShowsMetadataOfMembers(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		c.Join(func(cfg *coterie.Config) { cfg.Metadata = map[string]string{"http": "node4:80", "none": ""} })
		for _, n := range c.Nodes() {
			for i := range 3 {
				awaitMetadata(t, n, fmt.Sprint("node", i+1), zone(fmt.Sprint("zone", i+1)))
			}
			awaitMetadata(t, n, "node4", map[string]string{"http": "node4:80"})
		}
		sameState(t, c)
	}, inZones())
}

func TestOpenReplacesMetadata(t *testing.T) {
	for name, test := range map[string]struct{ restarted, want map[string]string }{
		"another map":  {map[string]string{"rack": "7"}, map[string]string{"rack": "7"}},
		"the same map": {zone("zone1"), zone("zone1")},
		"an empty map": {map[string]string{}, nil},
		"nil":          {nil, map[string]string{"zone": "zone1", "added": "v"}},
	} {
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				awaitMetadata(t, c.Node(0), "node1", zone("zone1"))
				require.NoError(t, c.Node(1).UpdateMetadata(t.Context(), c.Node(0).ID(), map[string]string{"added": "v"}))
				c.Stop(0)
				c.Reconfigure(0, func(cfg *coterie.Config) { cfg.Metadata = test.restarted })
				c.Restart(0)
				ready(t, c.Node(0))
				time.Sleep(10 * time.Second) // until the node is on record again
				for _, n := range c.Nodes() {
					require.Equal(t, test.want, members(t, n)["node1"].Metadata)
					require.Equal(t, zone("zone2"), members(t, n)["node2"].Metadata)
				}
				sameState(t, c)
			}, inZones())
		})
	}
}

func TestUpdateMetadata(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		awaitMetadata(t, c.Node(0), "node1", zone("zone1"))
		id := c.Node(0).ID()
		for i, n := range c.Nodes() {
			require.NoError(t, n.UpdateMetadata(t.Context(), id, map[string]string{fmt.Sprint("by", i): "v", "last": fmt.Sprint(i)}))
			require.Equal(t, fmt.Sprint(i), members(t, n)["node1"].Metadata["last"], "the caller's node has the change")
		}
		require.NoError(t, c.Leader().UpdateMetadata(t.Context(), id, map[string]string{"by1": "", "zone": ""}))
		want := map[string]string{"by0": "v", "by2": "v", "last": "2"}
		time.Sleep(10 * time.Second)
		c.Crash(c.Index(c.Leader()))
		require.Equal(t, want, members(t, c.Leader())["node1"].Metadata, "the next leader has it, and no node undoes it")
	}, inZones())
}

// A node that starts puts its Config.Metadata on record first.
func TestUpdateOfOwnMetadataComesSecond(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for i := range 3 {
			c.Crash(i)
			c.Restart(i)
			n := c.Node(i)
			require.NoError(t, n.UpdateMetadata(t.Context(), n.ID(), map[string]string{"own": "v"}))
			time.Sleep(10 * time.Second)
			want := map[string]string{"own": "v", "zone": fmt.Sprint("zone", i+1)}
			require.Equal(t, want, members(t, c.Leader())[n.Status().Name].Metadata)
		}
	}, inZones())
}

func TestUpdateMetadataErrors(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		half := map[string]string{"a": strings.Repeat("v", coterie.MaxMetadataBytes/2)}
		for _, n := range c.Nodes() {
			id := n.ID()
			require.ErrorIs(t, n.UpdateMetadata(t.Context(), 42, zone("z")), coterie.ErrMemberNotFound)
			for _, bad := range []map[string]string{{"": "v"}, {"k": "\xff"}, {"k": strings.Repeat("v", coterie.MaxMetadataBytes)}} {
				require.ErrorIs(t, n.UpdateMetadata(t.Context(), id, bad), coterie.ErrInvalidOption)
			}
			require.NoError(t, n.UpdateMetadata(t.Context(), id, half))
			err := n.UpdateMetadata(t.Context(), id, map[string]string{"b": half["a"]})
			require.ErrorIs(t, err, coterie.ErrInvalidOption, "the result is too large")
			require.Equal(t, half, members(t, n)[n.Status().Name].Metadata)
		}
	})
}

// A member that was added can be described before its node starts. A node without Config.Metadata keeps that.
func TestMetadataOfMemberThatNeverRan(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		m, err := c.Leader().AddMember(t.Context(), "node4", "node4:1", coterie.WithNonVoter())
		require.NoError(t, err)
		require.NoError(t, c.Follower().UpdateMetadata(t.Context(), m.ID, zone("z")))
		ready(t, c.Node(c.Join(nil)))
		require.Equal(t, zone("z"), members(t, c.Leader())["node4"].Metadata)
		require.NoError(t, c.Leader().RemoveMember(t.Context(), m.ID))
		_, err = c.Leader().AddMember(t.Context(), "node4", "node4:1")
		require.NoError(t, err)
		require.Nil(t, members(t, c.Leader())["node4"].Metadata, "a returning member has none")
	})
}

func TestMetadataIsInDirectories(t *testing.T) {
	cfg := coterie.Config{Dir: t.TempDir(), Name: "a", Metadata: zone("z")}
	n, err := coterie.Open(t.Context(), cfg)
	require.NoError(t, err)
	cfg.Metadata["zone"] = "the node has a copy"
	awaitMetadata(t, n, "a", zone("z"))
	require.NoError(t, n.Close())
	found, err := datadir.Inspect(t.Context(), cfg.Dir)
	require.NoError(t, err)
	require.Equal(t, zone("z"), found.Members[0].Metadata)
}
