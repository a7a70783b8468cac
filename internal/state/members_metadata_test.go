// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
)

func TestMetadataIsReplacedIfDescribed(t *testing.T) {
	m := start(t)
	m.Configure(2, []Server{{ID: 1}})
	described := func(start uint64, metadata string) {
		m.enroll(command.Enroll{ID: 1, Term: 1, Start: start, Described: true, Metadata: metadata})
	}
	described(7, "m")
	before := m.View().Members
	require.Equal(t, "m", before[0].Metadata)
	require.EqualValues(t, 7, before[0].Start)
	m.enroll(command.Enroll{ID: 1, Term: 1})
	require.Equal(t, "m", m.View().Members[0].Metadata, "an entry of a version without metadata keeps it")
	require.Zero(t, m.View().Members[0].Start, "and shows that the version took part")
	described(8, "")
	require.Empty(t, m.View().Members[0].Metadata)
	require.Equal(t, "m", before[0].Metadata, "a view does not change")
}

// Nodes of versions without metadata must get the same hash.
func TestMetadataIsNotInTheHash(t *testing.T) {
	hash := func(e command.Enroll) uint64 {
		m := start(t)
		m.Configure(2, []Server{{ID: 1}})
		e.ID, e.Term = 1, 1
		m.enroll(e)
		return m.View().Hash
	}
	require.Equal(t, hash(command.Enroll{}), hash(command.Enroll{Start: 7, Described: true, Metadata: "m"}))
}

func TestMetadataIsInSnapshots(t *testing.T) {
	m := start(t)
	m.Configure(2, []Server{{ID: 1}, {ID: 2}})
	m.enroll(command.Enroll{ID: 2, Term: 1, Start: 7, Described: true, Metadata: "m"})
	var b bytes.Buffer
	_, err := m.Snapshot().WriteTo(&b)
	require.NoError(t, err)
	restored, err := Read(&b)
	require.NoError(t, err)
	require.Equal(t, m.View().Members, restored.View().Members)
}
