// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/wire"
)

// The field numbers of a proposal that do not belong to an operation.
const (
	fieldPut      = 10
	fieldTxn      = 13
	fieldCompact  = 20
	fieldExpire   = 23
	fieldRegister = 24
	fieldUnknown  = 900
)

// unknown appends two unknown fields, one of either wire type.
func unknown(b []byte) []byte {
	b = wire.Uint(b, fieldUnknown, 12345)
	return wire.Text(b, fieldUnknown+1, "of a newer version")
}

// proposed returns the proposal decoded from the fields that encode appends.
func proposed(encode func(b []byte) []byte) (command.Proposal, error) {
	var p command.Proposal
	err := p.Decode(encode(nil))
	return p, err
}

func TestProposalsRoundTrip(t *testing.T) {
	all := proposals()
	for _, op := range []command.Op{put(""), get("", ""), del("", ""), nest(command.Txn{}), txn(txn(), put("k"))} {
		all = append(all, command.Proposal{Command: command.Command{Op: op}})
	}
	all = append(all,
		command.Proposal{Command: command.Command{Compact: &command.Compact{}}},
		command.Proposal{Command: command.Command{Grant: &command.Grant{TTL: math.MinInt64}}},
		command.Proposal{Command: command.Command{Revoke: &command.Revoke{}}},
		command.Proposal{Command: command.Command{Expire: &command.Expire{}}},
		command.Proposal{Command: command.Command{As: &command.As{}, Compact: &command.Compact{}}},
		command.Proposal{Command: command.Command{As: &command.As{User: "u"}, Grant: &command.Grant{ID: 1, TTL: 1}}},
		command.Proposal{Command: command.Command{As: &command.As{User: "u"}, Revoke: &command.Revoke{ID: 1}}},
		command.Proposal{Command: command.Command{As: &command.As{}, Auth: &command.Auth{Action: command.AuthEnable}}},
	)
	for _, p := range all {
		b := p.Append(nil)
		got, err := proposed(p.Append)
		require.NoError(t, err)
		require.Equal(t, p, got)
		require.Equal(t, b, got.Append(nil), "equal values have equal bytes")
		require.Equal(t, append([]byte("before"), b...), p.Append([]byte("before")), "Append keeps existing bytes")
	}
}

func TestDecodeResetsProposal(t *testing.T) {
	all := proposals()
	var p command.Proposal
	for _, next := range all {
		require.NoError(t, p.Decode(next.Append(nil)))
		require.Equal(t, next, p, "nothing of the previous value is left")
	}
}

func TestDecodedValuesAreCopies(t *testing.T) {
	want := proposals()[0]
	b := want.Append(nil)
	var p command.Proposal
	require.NoError(t, p.Decode(b))
	clear(b)
	require.Equal(t, want, p)

	b = result().Append(nil)
	r, err := command.DecodeResult(b)
	require.NoError(t, err)
	clear(b)
	require.Equal(t, result(), r)
}

func TestResultsRoundTrip(t *testing.T) {
	for _, r := range []*command.Result{result(), {}, {Code: command.OK, Revision: math.MinInt64}, {KVs: []mvcc.KeyValue{{}}}} {
		b := r.Append(nil)
		got, err := command.DecodeResult(b)
		require.NoError(t, err)
		require.Equal(t, r, got)
		require.Equal(t, b, got.Append(nil), "equal values have equal bytes")
	}
}

func TestKeyValuesRoundTrip(t *testing.T) {
	for _, kv := range []mvcc.KeyValue{keyValue(), {}, {Key: "\x00", Version: math.MaxInt64}} {
		b := command.AppendKeyValue(nil, kv)
		got, err := command.DecodeKeyValue(b)
		require.NoError(t, err)
		require.Equal(t, kv, got)
		require.Equal(t, b, command.AppendKeyValue(nil, got), "equal values have equal bytes")
	}
}

// spread returns a message with unknown fields before and after each of its own, and the same in nested
// messages, for the fields that nests selects.
func spread(b []byte, nests func(path []int) bool, path ...int) (out []byte) {
	out = unknown(out)
	for r := wire.NewReader(b); r.Next(); {
		path := append(path, r.Field())
		switch payload := r.Bytes(); {
		case payload == nil:
			out = wire.Uint(out, r.Field(), r.Uint())
		case nests(path):
			out = wire.Message(out, r.Field(), func(b []byte) []byte { return append(b, spread(payload, nests, path...)...) })
		default:
			out = wire.Element(out, r.Field(), payload)
		}
		out = unknown(out)
	}
	return out
}

func TestUnknownFieldsAreSkipped(t *testing.T) {
	// Messages are all kinds of command, all parts of a transaction, and the leases that expire.
	nests := func(path []int) bool {
		switch last := path[len(path)-1]; {
		case len(path) == 1 || last >= fieldPut:
			return true
		case len(path) == 2 && path[0] == fieldExpire:
			return last == 2
		default:
			return path[len(path)-2] == fieldTxn
		}
	}
	for _, p := range proposals() {
		b := p.Append(nil)
		longer := spread(b, nests)
		require.Greater(t, len(longer), len(b))
		got, err := proposed(func([]byte) []byte { return longer })
		require.NoError(t, err)
		require.Equal(t, p, got)
	}

	nests = func(path []int) bool { last := path[len(path)-1]; return last == 4 || last == 8 }
	inKeyValue := func(path []int) bool { return len(path) > 1 && path[len(path)-2] == 4 }
	r, err := command.DecodeResult(spread(result().Append(nil), func(path []int) bool { return nests(path) && !inKeyValue(path) }))
	require.NoError(t, err)
	require.Equal(t, result(), r)

	kv, err := command.DecodeKeyValue(spread(command.AppendKeyValue(nil, keyValue()), func([]int) bool { return false }))
	require.NoError(t, err)
	require.Equal(t, keyValue(), kv)
}

func TestUnknownKindOfCommandIsNamed(t *testing.T) {
	inTxn := func(encode func(b []byte) []byte) func(b []byte) []byte {
		return func(b []byte) []byte {
			return wire.Message(b, fieldTxn, func(b []byte) []byte { return wire.Message(b, 2, encode) })
		}
	}
	for name, encode := range map[string]func(b []byte) []byte{
		"nothing":                        func(b []byte) []byte { return b },
		"no command":                     func(b []byte) []byte { return wire.Uint(wire.Uint(b, 1, 5), 2, 6) },
		"a newer kind":                   unknown,
		"in a transaction":               inTxn(unknown),
		"empty, in a transaction":        inTxn(func(b []byte) []byte { return b }),
		"no operation, in a transaction": inTxn(func(b []byte) []byte { return wire.Message(b, fieldCompact, unknown) }),
		"deep in a transaction":          inTxn(inTxn(inTxn(unknown))),
	} {
		p, err := proposed(encode)
		require.ErrorIs(t, err, command.ErrUnknown, name)
		good := command.Proposal{Command: command.Command{Term: true}}
		e := sealed(wire.Prefixed(wire.Prefixed(nil, good.Append), encode))
		_, err = decode(e)
		require.ErrorIs(t, err, command.ErrUnknown, "%s: %+v", name, p)
	}
}

// If a command had two kinds, the encoder might write one and the state machine execute the other.
func TestCommandOfTwoKindsIsMalformed(t *testing.T) {
	all := proposals()
	for i, a := range all {
		for j, b := range all {
			_, err := proposed(func(bytes []byte) []byte { return b.Append(a.Append(bytes)) })
			if i == j {
				require.NoError(t, err, "the last field of a kind counts")
			} else {
				require.ErrorIs(t, err, wire.ErrMalformed, "%d and %d", i, j)
			}
		}
	}
	_, err := proposed(func(b []byte) []byte {
		return wire.Message(b, fieldTxn, func(b []byte) []byte {
			return wire.Message(b, 2, func(b []byte) []byte {
				p, d := command.Proposal{Command: command.Command{Op: put("k")}}, command.Proposal{Command: command.Command{Op: del("k", "")}}
				return d.Append(p.Append(b))
			})
		})
	})
	require.ErrorIs(t, err, wire.ErrMalformed, "the same in a transaction")
}

func TestMalformedFieldsAreRejected(t *testing.T) {
	bad := func(b []byte) []byte { return append(b, 0x80) }
	for field := fieldPut; field <= fieldExpire; field++ {
		_, err := proposed(func(b []byte) []byte { return wire.Message(b, field, bad) })
		if field <= fieldTxn || field >= fieldCompact {
			require.ErrorIs(t, err, wire.ErrMalformed, "field %d", field)
		} else {
			require.ErrorIs(t, err, command.ErrUnknown, "field %d", field)
		}
	}
	_, err := proposed(func(b []byte) []byte { return bad(wire.Bool(b, fieldRegister, true)) })
	require.ErrorIs(t, err, wire.ErrMalformed)
	for field := 1; field <= 3; field++ {
		_, err := proposed(func(b []byte) []byte {
			return wire.Message(b, fieldTxn, func(b []byte) []byte { return wire.Message(b, field, bad) })
		})
		require.ErrorIs(t, err, wire.ErrMalformed, "field %d of a transaction", field)
	}
	for _, field := range []int{4, 8} {
		r, err := command.DecodeResult(wire.Message(nil, field, bad))
		require.ErrorIs(t, err, wire.ErrMalformed)
		require.Nil(t, r)
	}
	_, err = command.DecodeKeyValue(bad(nil))
	require.ErrorIs(t, err, wire.ErrMalformed)
}

// A message that is cut off either fails to decode or, at a field boundary, decodes as its first fields.
// A message does not contain its length, so entries and blocks have to.
func TestCutMessageNeverDecodesAsWhole(t *testing.T) {
	for _, p := range proposals() {
		b := p.Append(nil)
		for i := range b {
			var got command.Proposal
			if err := got.Decode(b[:i]); err == nil {
				require.NotEqual(t, p, got, "cut at %d", i)
			}
		}
	}
	b := result().Append(nil)
	for i := range b {
		if got, err := command.DecodeResult(b[:i]); err == nil {
			require.NotEqual(t, result(), got, "cut at %d", i)
		}
	}
}

// deepest is the maximum nesting of transactions.
const deepest = 31

func TestTransactionsNestToLimit(t *testing.T) {
	p := command.Proposal{Command: command.Command{Op: nested(deepest)}}
	got, err := proposed(p.Append)
	require.NoError(t, err)
	require.Equal(t, p, got)

	for _, depth := range []int{deepest + 1, 10_000} {
		p := command.Proposal{Command: command.Command{Op: nested(depth)}}
		b := p.Append(nil)
		size := allocated(func() { _, err = proposed(func([]byte) []byte { return b }) })
		require.ErrorIs(t, err, wire.ErrMalformed)
		require.Less(t, size, uint64(64<<10), "deeper levels are not read")
	}
}

func TestResultsNestToLimit(t *testing.T) {
	deep := func(depth int) *command.Result {
		r := command.Result{Revision: 1}
		for range depth - 1 {
			r = command.Result{Ops: []command.Result{r}}
		}
		return &r
	}
	// Results nest one level deeper than transactions, because the innermost operations have results.
	got, err := command.DecodeResult(deep(deepest + 1).Append(nil))
	require.NoError(t, err)
	require.Equal(t, deep(deepest+1), got)
	for _, depth := range []int{deepest + 2, 10_000} {
		b := deep(depth).Append(nil)
		size := allocated(func() { _, err = command.DecodeResult(b) })
		require.ErrorIs(t, err, wire.ErrMalformed)
		require.Less(t, size, uint64(64<<10), "deeper levels are not read")
	}
}

func TestLengthBeyondMessageTakesNoMemory(t *testing.T) {
	for _, length := range []uint64{2, 1 << 31, 1 << 40, math.MaxUint64} {
		for field := 1; field <= 25; field++ {
			b := wire.Uint(nil, field, length) // a number and a length differ by the lowest bit of the tag
			tag := bytes.Clone(b)
			tag[0] |= 1
			var err, errResult, errKeyValue error
			size := allocated(func() {
				_, err = proposed(func([]byte) []byte { return append(tag, 'x') })
				_, errResult = command.DecodeResult(append(tag, 'x'))
				_, errKeyValue = command.DecodeKeyValue(append(tag, 'x'))
			})
			for _, err := range []error{err, errResult, errKeyValue} {
				require.ErrorIs(t, err, wire.ErrMalformed, "field %d of length %d", field, length)
			}
			require.Less(t, size, uint64(64<<10))
		}
	}
}

// Each minimal message becomes a value of some size. Their memory must grow linearly with the input.
func TestMemoryOfSmallMessagesIsLinear(t *testing.T) {
	element := func(fields ...int) []byte {
		var encode func(fields []int) []byte
		encode = func(fields []int) (b []byte) {
			if len(fields) > 0 {
				b = wire.Message(b, fields[0], func(b []byte) []byte { return append(b, encode(fields[1:])...) })
			}
			return b
		}
		return encode(fields)
	}
	const most = 300
	for name, fields := range map[string][]int{
		"compares": {1}, "puts": {2, fieldPut}, "gets": {3, fieldPut + 1}, "transactions": {2, fieldTxn},
	} {
		for _, n := range []int{1000, 16_000} {
			b := wire.Message(nil, fieldTxn, func(b []byte) []byte { return append(b, bytes.Repeat(element(fields...), n)...) })
			size := allocated(func() {
				_, err := proposed(func([]byte) []byte { return b })
				require.NoError(t, err)
			})
			require.Less(t, size, uint64(len(b)*most), fmt.Sprint(name, n))
		}
	}
	for _, field := range []int{4, 8} {
		for _, n := range []int{1000, 16_000} {
			b := bytes.Repeat(element(field), n)
			size := allocated(func() {
				_, err := command.DecodeResult(b)
				require.NoError(t, err)
			})
			require.Less(t, size, uint64(len(b)*most))
		}
	}
}
