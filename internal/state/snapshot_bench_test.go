// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// benchmarkStates calls fn with states of 100,000 keys: one that still has the history of all of them, and one that is
// compacted.
func benchmarkStates(b *testing.B, fn func(b *testing.B, s *State)) {
	for _, compacted := range []bool{false, true} {
		name := "history"
		if compacted {
			name = "compacted"
		}
		b.Run(name, func(b *testing.B) {
			s := filled(b, 100_000)
			if compacted {
				require.NoError(b, s.kv.Compact(s.kv.Revision()))
			}
			b.ReportAllocs()
			b.ResetTimer()
			fn(b, s)
		})
	}
}

func BenchmarkSnapshotWrite(b *testing.B) {
	benchmarkStates(b, func(b *testing.B, s *State) {
		for b.Loop() {
			n, err := s.Snapshot().WriteTo(io.Discard)
			require.NoError(b, err)
			b.SetBytes(n)
		}
	})
}

func BenchmarkSnapshotRead(b *testing.B) {
	benchmarkStates(b, func(b *testing.B, s *State) {
		var buf bytes.Buffer
		n, err := s.Snapshot().WriteTo(&buf)
		require.NoError(b, err)
		b.SetBytes(n)
		for b.Loop() {
			_, err := Read(bytes.NewReader(buf.Bytes()))
			require.NoError(b, err)
		}
	})
}
