// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// TestMain silences the nodes that are opened without a logger.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	m.Run()
}

// A site is where a founder runs: its configuration, and a disk in memory.
type site struct {
	coterie.Config
	disk *vfs.Memory
}

// sites returns the sites of n founders, which share a network of their own.
func sites(n int) (all []*site) {
	network := coterie.NewMemoryNetwork()
	var founders []coterie.Founder
	for i := range n {
		founders = append(founders, coterie.Founder{Name: fmt.Sprint("r", i), Addr: fmt.Sprintf("r%d:1", i)})
	}
	for _, p := range founders {
		cfg := coterie.Config{Name: p.Name, Addr: p.Addr, Advertise: p.Addr, Founders: founders, Network: network, Dir: "/data"}
		all = append(all, &site{cfg, vfs.NewForgetful()})
	}
	return all
}

// on returns a context that has a disk.
func on(t testing.TB, disk *vfs.Memory) context.Context { return vfs.With(t.Context(), disk.Mount()) }

func (s *site) restore(t testing.TB, b []byte) error {
	return coterie.RestoreBackup(on(t, s.disk), bytes.NewReader(b), s.Config)
}

func (s *site) open(t testing.TB) *coterie.Node {
	t.Helper()
	n, err := coterie.Open(on(t, s.disk), s.Config)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

// inspect inspects a founder's directory, and checks that this changes nothing.
func (s *site) inspect(t testing.TB) (datadir.Inspection, error) {
	t.Helper()
	changes := s.disk.Changes()
	in, err := datadir.Inspect(on(t, s.disk), s.Dir)
	require.Equal(t, changes, s.disk.Changes(), "an inspection changes nothing")
	return in, err
}

// recover recovers a founder's directory.
func (s *site) recover(t testing.TB, survivors ...datadir.Inspection) (datadir.Recovery, error) {
	return datadir.Recover(on(t, s.disk), s.Dir, survivors...)
}

// longRun returns a single founder with a node that has run for a while, and its last Status. The directory has two
// snapshots, entries before and after them, and a lease.
func longRun(t testing.TB) (*site, coterie.Status) {
	t.Helper()
	s := sites(1)[0]
	s.SnapshotEntries = 8
	n, err := coterie.Open(on(t, s.disk), s.Config)
	require.NoError(t, err)
	require.NoError(t, n.Ready(t.Context()))
	put(t, n, "leased", "v", coterie.WithLease(grant(t, n, time.Hour)))
	for i := range 30 {
		put(t, n, fmt.Sprint("k", i%5), fmt.Sprint(i))
		time.Sleep(time.Second)
	}
	status := n.Status()
	require.NoError(t, n.Close())
	return s, status
}

// opened opens the nodes of founders, calls do with them, and closes them.
func opened(t testing.TB, all []*site, do func(nodes []*coterie.Node)) {
	t.Helper()
	var nodes []*coterie.Node
	for _, s := range all {
		n, err := coterie.Open(on(t, s.disk), s.Config)
		require.NoError(t, err)
		nodes = append(nodes, n)
	}
	do(nodes)
	for _, n := range nodes {
		require.NoError(t, n.Close())
	}
}

func readyAll(t testing.TB, nodes []*coterie.Node) {
	t.Helper()
	for _, n := range nodes {
		require.NoError(t, n.Ready(t.Context()))
	}
}

// open opens a single node in memory.
func open(t testing.TB) *coterie.Node {
	t.Helper()
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	require.NoError(t, n.Ready(t.Context()))
	return n
}

func put(t testing.TB, n *coterie.Node, key, val string, opts ...coterie.PutOption) *coterie.PutResponse {
	t.Helper()
	r, err := n.Put(t.Context(), key, val, opts...)
	require.NoError(t, err)
	return r
}

func get(t testing.TB, n *coterie.Node, key string) *coterie.GetResponse {
	t.Helper()
	r, err := n.Get(t.Context(), key)
	require.NoError(t, err)
	return r
}

func grant(t testing.TB, n *coterie.Node, ttl time.Duration) coterie.LeaseID {
	t.Helper()
	l, err := n.Grant(t.Context(), ttl)
	require.NoError(t, err)
	return l.ID
}

func backup(t testing.TB, n *coterie.Node) (*coterie.BackupResponse, []byte) {
	t.Helper()
	require.NoError(t, n.Ready(t.Context()))
	var b bytes.Buffer
	h, err := n.Backup(t.Context(), &b)
	require.NoError(t, err)
	return h, b.Bytes()
}

func smallBackup(t testing.TB) []byte {
	t.Helper()
	n := open(t)
	put(t, n, "k", "old", coterie.WithLease(grant(t, n, time.Hour)))
	put(t, n, "k", "v")
	_, b := backup(t, n)
	return b
}

// ready waits until a node can serve.
func ready(t *testing.T, n *coterie.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, n.Ready(ctx))
}

// notReady returns why a node does not become ready within a time.
func notReady(t *testing.T, n *coterie.Node, within time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	err := n.Ready(ctx)
	require.Error(t, err)
	return err
}

// members returns the members of a node's cluster by name.
func members(t *testing.T, n *coterie.Node) map[string]coterie.Member {
	t.Helper()
	all, err := n.Members(t.Context())
	require.NoError(t, err)
	byName := map[string]coterie.Member{}
	for _, m := range all {
		byName[m.Name] = m
	}
	require.Len(t, byName, len(all))
	return byName
}

// awaitVote waits until a member has a vote.
func awaitVote(t *testing.T, n *coterie.Node, name string) {
	t.Helper()
	for range 600 {
		if members(t, n)[name].Voter {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s has no vote after a minute", name)
}

// sameState waits until all nodes have applied the newest revision, and checks that they agree.
func sameState(t *testing.T, c *coterietest.Cluster) {
	t.Helper()
	rev := get(t, c.Leader(), "any").Revision
	c.WaitRevision(rev)
	want, err := c.Leader().Hash(t.Context(), rev)
	require.NoError(t, err)
	for _, n := range c.Nodes() {
		h, err := n.Hash(t.Context(), rev)
		require.NoError(t, err)
		require.Equal(t, want.Hash, h.Hash, "hash of %s at revision %d", n.Status().Name, rev)
	}
}
