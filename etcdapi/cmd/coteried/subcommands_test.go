// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// finishes runs a subcommand to its end.
func finishes(t *testing.T, code int, args ...string) string {
	t.Helper()
	p := run(t, args...)
	require.Equal(t, code, p.Exits(), "%s", p.Output())
	return p.Output()
}

// Three members begin with a snapshot of one member, and their data is saved as a snapshot again, from a directory.
func TestMembersBeginWithASnapshot(t *testing.T) {
	processTest(t)
	one := startCluster(t, 1, "http")
	put(t, dial(t, nil, one.clientURLs()...), "k", "v")
	snapshot := filepath.Join(t.TempDir(), "snapshot.db")
	finishes(t, 0, "snapshot", "save", snapshot, "--endpoints", one.places[0].clientURL())

	three := &cluster{}
	var entries []string
	for _, name := range []string{"a", "b", "c"} {
		p := newPlace(t, name, "http")
		three.places, entries = append(three.places, p), append(entries, p.entry())
	}
	for _, p := range three.places {
		out := finishes(t, 0, "restore", snapshot, "--name", p.name, "--data-dir", p.dir,
			"--initial-advertise-peer-urls", p.peerURL(), "--initial-cluster", strings.Join(entries, ","))
		require.Contains(t, out, "revision 2, 1 keys")
		three.members = append(three.members, run(t, p.flags()...)) // the directory knows the members
	}
	for i, m := range three.members {
		m.ready()
		c := dial(t, nil, three.places[i].clientURL())
		require.Equal(t, "v", value(t, c, "k"))
		r, err := c.Put(t.Context(), "k", "v")
		require.NoError(t, err)
		require.EqualValues(t, 3+i, r.Header.Revision)
		all, err := c.MemberList(t.Context())
		require.NoError(t, err)
		require.Len(t, all.Members, 3)
	}
	for _, m := range three.members {
		m.stop()
	}
	again := filepath.Join(t.TempDir(), "again.db")
	require.Contains(t, finishes(t, 1, "snapshot", "save", again, "--data-dir", three.places[0].dir), "--incomplete")
	finishes(t, 0, "snapshot", "save", again, "--data-dir", three.places[0].dir, "--incomplete")
	require.Contains(t, finishes(t, 0, "snapshot", "status", again), ", 5, 1, ")
}

func TestSubcommandsHaveExitCodes(t *testing.T) {
	processTest(t)
	for _, name := range []string{"restore", "snapshot", "certs"} {
		require.Contains(t, finishes(t, 128, name), "Error: ")
		require.Contains(t, finishes(t, 0, name, "-h"), "Usage: coteried "+name)
	}
}
