// SPDX-License-Identifier: Apache-2.0

package run

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLineHasItsRunsAndOlderOnes(t *testing.T) {
	var first Line
	require.True(t, first.Has(Number{5, 5}), "the directory is unknown")
	first = first.Next(Number{}, 11)
	require.Equal(t, Number{1, 11}, first.Now())
	second := first.Next(Number{}, 12)
	require.True(t, second.Has(Number{}), "nothing is on record")
	require.True(t, second.Has(first.Now()))
	require.True(t, second.Has(second.Now()))
	require.False(t, first.Has(second.Now()), "the directory is older")
	require.False(t, first.Next(first.Now(), 13).Has(second.Now()), "the directory continued elsewhere")
	require.False(t, second.Has(Void))

	third := second.Next(second.Now(), 13)
	require.True(t, third.Has(second.Now()))
	require.True(t, third.Has(Number{1, 99}), "the record is older than the line")
	require.True(t, second.Next(Number{2, 99}, 13).Has(first.Now()), "a run of another directory on record drops none")
}

// However often an older copy is started again, it never gets the run on record.
func TestOlderCopyStaysOlder(t *testing.T) {
	copied := Line{}.Next(Number{}, 11)
	record := copied.Next(copied.Now(), 12).Now()
	for draw := range uint64(100) {
		copied = copied.Next(Number{1, 11}, 100+draw)
		require.False(t, copied.Has(record))
	}
	require.True(t, copied.Has(Number{1, 11}))
	require.True(t, copied.Has(copied.Now()))
	require.EqualValues(t, kept, copied.Count, "no run that may be on record is missing")
}

func TestLinesRoundTrip(t *testing.T) {
	l := Line{}
	for draw := range uint64(kept) {
		read, err := ReadLine(l.Append(nil))
		require.NoError(t, err)
		require.Equal(t, l, read)
		l = l.Next(Number{}, 1<<63+draw)
	}
	l.Count = 1 << 63
	require.LessOrEqual(t, len(l.Append(nil)), 128, "a Line must fit into a hello")
	_, err := ReadLine([]byte{0xff})
	require.Error(t, err)
	more, err := ReadLine(append(l.Append(nil), l.Append(nil)...))
	require.NoError(t, err)
	require.Equal(t, l, more)
}
