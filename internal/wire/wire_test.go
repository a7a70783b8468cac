// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFieldsRoundTrip(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	var b []byte
	b = Uint(b, 1, math.MaxUint64)
	b = Int(b, 2, math.MinInt64)
	b = Int(b, 3, math.MaxInt64)
	b = Bool(b, 4, true)
	b = Text(b, 5, "text")
	b = Element(b, 6, "")
	for _, text := range []string{"", "short", long} {
		b = Message(b, 7, func(b []byte) []byte { return Text(b, 1, text) })
	}
	b = Uint(b, 900, 7)

	r := NewReader(b)
	var fields []int
	var nested []string
	for r.Next() {
		fields = append(fields, r.Field())
		switch r.Field() {
		case 1:
			require.Equal(t, uint64(math.MaxUint64), r.Uint())
		case 2:
			require.Equal(t, int64(math.MinInt64), r.Int())
		case 3:
			require.Equal(t, int64(math.MaxInt64), r.Int())
		case 4:
			require.True(t, r.Bool())
		case 5:
			require.Equal(t, "text", r.Text())
		case 6:
			require.Empty(t, r.Bytes())
		case 7:
			inner := NewReader(r.Bytes())
			text := ""
			for inner.Next() {
				text = inner.Text()
			}
			require.NoError(t, inner.Err())
			nested = append(nested, text)
		}
	}
	require.NoError(t, r.Err())
	require.Equal(t, []int{1, 2, 3, 4, 5, 6, 7, 7, 7, 900}, fields)
	require.Equal(t, []string{"", "short", long}, nested)
}

// A wrong guess of a message's size costs time, and changes no byte.
func TestSizeOfMessageIsOnlyAGuess(t *testing.T) {
	sizes := []int{0, 1, 127, 128, 300, 16_383, 16_384, 100_000}
	for _, size := range sizes {
		message := bytes.Repeat([]byte{'m'}, size)
		want := Element([]byte("before"), 70, message)
		for _, guess := range sizes {
			got := LongMessage([]byte("before"), 70, guess, func(b []byte) []byte { return append(b, message...) })
			require.True(t, bytes.Equal(want, got), "%d bytes, guess %d", size, guess)
		}
	}
}

func TestMessageAllocatesNothing(t *testing.T) {
	b := make([]byte, 0, 1000)
	text := strings.Repeat("x", 300)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		LongMessage(b, 1, len(text), func(b []byte) []byte {
			return Message(b, 1, func(b []byte) []byte { return Text(b, 1, text) })
		})
	}))
}

func BenchmarkMessage(b *testing.B) {
	buffer := make([]byte, 0, 1000)
	text := strings.Repeat("x", 256)
	for name, guess := range map[string]int{"guessed": len(text), "moved": 0} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				LongMessage(buffer, 1, guess, func(b []byte) []byte { return Int(Text(b, 1, text), 2, 1_000_000) })
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	message := Bool(Int(Text(Text(nil, 1, "key"), 2, strings.Repeat("x", 256)), 3, 1_000_000), 4, true)
	b.ReportAllocs()
	for b.Loop() {
		for r := NewReader(message); r.Next(); {
		}
	}
}

func TestZeroValuesTakeNoBytes(t *testing.T) {
	b := Text(Bool(Int(Uint(nil, 1, 0), 2, 0), 3, false), 4, "")
	require.Empty(t, b)
}

func TestMalformed(t *testing.T) {
	for name, b := range map[string][]byte{
		"tag cut":         {0x80},
		"number cut":      {0x02, 0x80},
		"number missing":  {0x02},
		"field zero":      {0x00, 0x01},
		"length too long": {0x03, 0x05, 'a'},
		"endless varint":  {0x02, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(b)
			for r.Next() {
			}
			require.ErrorIs(t, r.Err(), ErrMalformed)
		})
	}
}

func FuzzReader(f *testing.F) {
	f.Add(Text(Uint(nil, 1, 300), 2, "payload"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		for r.Next() {
			_, _, _, _ = r.Field(), r.Int(), r.Text(), r.Bool()
		}
	})
}
