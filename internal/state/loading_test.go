// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

func TestVersionsOfAllSizesAreLoaded(t *testing.T) {
	s := New()
	e := command.NewEntry()
	for i := range 2000 {
		size := i
		if i%100 == 0 {
			size = i * 100 // more than is added at a time
		}
		p := proposal(0, 0, 0, put(fmt.Sprintf("key-%04d", i*7%2000), strings.Repeat(string(rune('a'+i%26)), size)))
		e.Add(&p)
	}
	require.NoError(t, s.Apply(1, 1, e.Bytes(), nowhere{}))
	for _, rev := range []int64{0, 1000, 2001} {
		if rev > 0 {
			require.NoError(t, s.kv.Compact(rev))
		}
		var buf bytes.Buffer
		_, err := s.Snapshot().WriteTo(&buf)
		require.NoError(t, err)
		again, err := Read(&buf)
		require.NoError(t, err)
		require.NoError(t, again.View().KV.Check())
		require.Equal(t, s.View().KV.Hash(0), again.View().KV.Hash(0))
	}
}

func TestLoadingReturnsFirstError(t *testing.T) {
	l := newLoading(mvcc.NewLoader(9, -1))
	for _, key := range []string{"a", "", "b"} {
		kv := mvcc.KeyValue{Key: key, CreateRevision: 2, ModRevision: 2, Version: 1}
		require.NoError(t, l.add(command.AppendKeyValue(nil, kv)))
	}
	require.ErrorContains(t, l.end(), `version of "" at revision 2`)
}
