// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
)

// puts returns this many proposals of one proposer, each a put of 256 bytes.
func puts(n int) []command.Proposal {
	all := make([]command.Proposal, n)
	for i := range all {
		all[i] = command.Proposal{
			Proposer: 0x9e3779b97f4a7c15, Seq: uint64(1_000_000 + i), Lowest: 1_000_000,
			Command: command.Command{Op: command.Op{Put: &command.Put{
				Key: fmt.Sprintf("key-%08d", i), Value: strings.Repeat("v", 256),
			}}},
		}
	}
	return all
}

// sizes returns the sum of the sizes of commands.
func sizes(t testing.TB, all []command.Proposal) (sum int) {
	for i := range all {
		size, err := command.CheckSize(&all[i].Command, math.MaxInt)
		require.NoError(t, err)
		sum += size
	}
	return sum
}

// perPut reports the time of one operation divided by the number of puts in it.
func perPut(b *testing.B, puts int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*puts), "ns/put")
}

func BenchmarkEncodeEntry(b *testing.B) {
	all := puts(1000)
	size := sizes(b, all)
	b.ReportAllocs()
	for b.Loop() {
		e := command.NewEntry()
		e.Grow(len(all), size)
		for i := range all {
			e.Add(&all[i])
		}
		e.Bytes()
	}
	perPut(b, len(all))
}

func BenchmarkDecodeEntry(b *testing.B) {
	e := entry(puts(1000)...)
	b.ReportAllocs()
	var d command.Decoder
	for b.Loop() {
		if _, err := d.Decode(e); err != nil {
			b.Fatal(err)
		}
		d.Reset()
	}
	perPut(b, 1000)
}

func BenchmarkTransaction(b *testing.B) {
	t := command.Txn{
		Compares: []command.Compare{{Key: "lock/name", Target: command.ModRevision, Int: 1_000_000}},
		Then:     []command.Op{{Put: &command.Put{Key: "lock/name", Value: "holder", Lease: 1 << 40}}},
		Else:     []command.Op{get("lock/name", "")},
	}
	p := command.Proposal{Proposer: 1 << 60, Seq: 1_000_000, Lowest: 1_000_000, Command: command.Command{Op: nest(t)}}
	e := entry(p)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			command.Single(&p)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		var d command.Decoder
		for b.Loop() {
			_, _ = d.Decode(e)
			d.Reset()
		}
	})
	b.Run("size", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = command.CheckSize(&p.Command, 1<<20)
		}
	})
	b.Run("validate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = command.Validate(&p.Command.Op, maxOps)
		}
	})
}

func BenchmarkResult(b *testing.B) {
	r := &command.Result{Revision: 1_000_000, Count: 100}
	for range 100 {
		r.KVs = append(r.KVs, keyValue())
	}
	encoded := r.Append(nil)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Append(nil)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = command.DecodeResult(encoded)
		}
	})
}

// BenchmarkBlocks writes and reads 1000 versions of a key.
func BenchmarkBlocks(b *testing.B) {
	kv := keyValue()
	write := func(out io.Writer) {
		w := command.NewBlockWriter(out)
		for range 1000 {
			_ = w.Record(func(b []byte) []byte { return command.AppendKeyValue(b, kv) })
		}
		_, _ = w.Close()
	}
	var stream bytes.Buffer
	write(&stream)
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(stream.Len()))
		b.ReportAllocs()
		for b.Loop() {
			write(io.Discard)
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(stream.Len()))
		b.ReportAllocs()
		for b.Loop() {
			_ = command.ReadBlocks(bytes.NewReader(stream.Bytes()), func(r []byte) error {
				_, err := command.DecodeKeyValue(r)
				return err
			})
		}
	})
}
