// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
)

// nowhere is a Sink that does nothing.
type nowhere struct{}

func (nowhere) Answer(uint64, uint64, *command.Result) {}
func (nowhere) Granted(lease.Lease)                    {}
func (nowhere) Ended(int64)                            {}

// filled returns a state with n keys.
func filled(t testing.TB, n int) *State {
	s := New()
	e := command.NewEntry()
	for i := range n {
		p := proposal(0, 0, 0, put(fmt.Sprintf("key-%08d", i), strings.Repeat("v", 256)))
		e.Add(&p)
	}
	require.NoError(t, s.Apply(1, 1, e.Bytes(), nowhere{}))
	return s
}

// BenchmarkApply applies entries of 100 puts of 256 bytes from one proposer to a store that already has
// keys. ns/op is per put.
func BenchmarkApply(b *testing.B) {
	for _, size := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("%d keys", size), func(b *testing.B) {
			s := filled(b, size)
			require.NoError(b, s.Apply(2, 1, entry(register(1)), nowhere{}))
			const batch = 100
			value := strings.Repeat("v", 256)
			b.ReportAllocs()
			seq, next := uint64(0), 0
			b.ResetTimer()
			for done := 0; done < b.N; done += batch {
				b.StopTimer()
				lowest := seq + 1
				e := command.NewEntry()
				for range batch {
					seq++
					next = (next + 7919) % size
					p := proposal(1, seq, lowest, put(fmt.Sprintf("key-%08d", next), value))
					e.Add(&p)
				}
				encoded := e.Bytes()
				b.StartTimer()
				if err := s.Apply(s.index+1, 1, encoded, nowhere{}); err != nil {
					b.Fatal(err)
				}
				_ = s.View()
				if rev := s.kv.Revision(); rev%10_000 < batch && rev > 10_000 {
					_ = s.kv.Compact(rev - 5_000)
				}
			}
		})
	}
}

func BenchmarkGetLimited(b *testing.B) {
	v := filled(b, 100_000).View().KV
	op := command.Op{Get: &command.Get{Key: "\x00", End: "\x00", Limit: 10}}
	b.ReportAllocs()
	for b.Loop() {
		Execute(v, &op, nil)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	s := filled(b, 100_000)
	encoded := bytesOf(b, s)
	b.Run("take", func(b *testing.B) {
		for b.Loop() {
			s.Snapshot()
		}
	})
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(encoded)))
		for b.Loop() {
			_, _ = s.Snapshot().WriteTo(io.Discard)
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(encoded)))
		for b.Loop() {
			_, _ = Read(bytes.NewReader(encoded))
		}
	})
}
