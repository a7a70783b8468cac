// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/lease"
	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/state"
	"github.com/coterie-kv/coterie/internal/wire"
)

// FuzzEntry decodes the input as an entry, and again with a valid checksum, which the fuzzer cannot find
// by itself.
func FuzzEntry(f *testing.F) {
	all := proposals()
	for _, e := range [][]byte{nil, entry(), entry(all...), entry(all[0], all[0])} {
		f.Add(e)
		f.Add(e[min(5, len(e)):])
	}
	f.Add(entry(command.Proposal{Command: command.Command{Op: nested(deepest + 1)}})[5:])
	used := entry(all...)
	f.Fuzz(func(t *testing.T, b []byte) {
		var d command.Decoder
		for _, e := range [][]byte{b, sealed(b)} {
			all, err := decode(e)
			reusing(t, &d, used)
			got, errReusing := d.Decode(e)
			require.Equal(t, err, errReusing)
			require.Equal(t, all, got)
			d.Reset()
			if err != nil {
				var corrupt *command.CorruptError
				require.True(t, errors.As(err, &corrupt) || errors.Is(err, wire.ErrFormat) || errors.Is(err, command.ErrUnknown) ||
					errors.Is(err, wire.ErrMalformed), "%v", err)
				continue
			}
			again, err := decode(entry(all...))
			require.NoError(t, err)
			require.Equal(t, all, again)
		}
	})
}

func FuzzResult(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(result().Append(nil))
	f.Add((&command.Result{Ops: make([]command.Result, 3)}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := command.DecodeResult(b)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			require.Nil(t, r)
			return
		}
		again, err := command.DecodeResult(r.Append(nil))
		require.NoError(t, err)
		require.Equal(t, r, again)
	})
}

func FuzzKeyValue(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(command.AppendKeyValue(nil, keyValue()))
	f.Fuzz(func(t *testing.T, b []byte) {
		kv, err := command.DecodeKeyValue(b)
		if err != nil {
			require.ErrorIs(t, err, wire.ErrMalformed)
			return
		}
		again, err := command.DecodeKeyValue(command.AppendKeyValue(nil, kv))
		require.NoError(t, err)
		require.Equal(t, kv, again)
	})
}

// FuzzBlocks decodes the input as a stream, and again as a block with a valid checksum.
func FuzzBlocks(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(stream(f))
	f.Add(stream(f, sampleRecords()...))
	_, blocks, _ := splitBlocks(stream(f, sampleRecords()...))
	f.Add(blocks[0][8:])
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := append([]byte("COTERIE\x01"), block(uint32(len(b)), b)...)
		for _, s := range [][]byte{b, whole} {
			all, err := records(s)
			if err != nil {
				var corrupt *command.CorruptError
				require.True(t, errors.As(err, &corrupt) || errors.Is(err, wire.ErrFormat), "%v", err)
				continue
			}
			again, err := records(stream(t, all...))
			require.NoError(t, err)
			require.Len(t, again, len(all))
			for i := range all {
				require.True(t, bytes.Equal(all[i], again[i]))
			}
		}
	})
}

// answers is a state.Sink that keeps the last answer.
type answers struct{ last *command.Result }

func (a *answers) Answer(_, _ uint64, r *command.Result) { a.last = r }
func (a *answers) Granted(lease.Lease)                   {}
func (a *answers) Ended(int64)                           {}

// populated returns a state with keys, leases and compacted history, and a function that applies a
// command to it.
func populated(t testing.TB) (*state.State, func(c command.Command) *command.Result) {
	s := state.New()
	var sink answers
	index := uint64(0)
	apply := func(c command.Command) *command.Result {
		index++
		p := command.Proposal{Proposer: 1, Seq: index, Lowest: index, Command: c}
		require.NoError(t, s.Apply(index, 1, command.Single(&p), &sink))
		return sink.last
	}
	apply(command.Command{Register: true})
	apply(command.Command{Grant: &command.Grant{ID: -7, TTL: 1}})
	for _, key := range []string{"a", "b", "key", "from"} {
		apply(command.Command{Op: put(key)})
		apply(command.Command{Op: command.Op{Put: &command.Put{Key: key, Value: "v", Lease: -7}}})
	}
	apply(command.Command{Op: del("b", "")})
	apply(command.Command{Compact: &command.Compact{Revision: 5}})
	return s, apply
}

// FuzzValidate executes every valid operation. Only the state may reject it then.
func FuzzValidate(f *testing.F) {
	seeds := append(operations(), nested(deepest), txn(txn(put("a")), txn(del("a", ""))), either([]command.Op{put("a")}, []command.Op{put("a")}))
	for _, op := range seeds {
		f.Add((&command.Proposal{Command: command.Command{Op: op}}).Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p command.Proposal
		if p.Decode(b) != nil || p.Command.Op == (command.Op{}) || command.Validate(&p.Command.Op, maxOps) != nil {
			return
		}
		s, apply := populated(t)
		r := apply(p.Command)
		require.NoError(t, s.View().Check())
		require.NotEqual(t, command.UnknownProposer, r.Code)
		again, err := command.DecodeResult(r.Append(nil))
		require.NoError(t, err)
		requireEqualResults(t, r, again)
	})
}

// requireEqualResults compares results. A nil list equals an empty one.
func requireEqualResults(t *testing.T, a, b *command.Result) {
	t.Helper()
	require.Equal(t, a.Append(nil), b.Append(nil))
	require.Equal(t, len(a.Ops), len(b.Ops))
	require.Equal(t, append([]mvcc.KeyValue(nil), a.KVs...), append([]mvcc.KeyValue(nil), b.KVs...))
	for i := range a.Ops {
		requireEqualResults(t, &a.Ops[i], &b.Ops[i])
	}
}

func TestDeepestTransactionIsExecuted(t *testing.T) {
	_, apply := populated(t)
	op := put("deep")
	for range deepest {
		op = txn(op)
	}
	require.NoError(t, command.Validate(&op, maxOps))
	r := apply(command.Command{Op: op})
	require.Equal(t, command.OK, r.Code)
	again, err := command.DecodeResult(r.Append(nil))
	require.NoError(t, err)
	require.Equal(t, r, again)
	for range deepest {
		require.True(t, r.Succeeded)
		require.Len(t, r.Ops, 1)
		r = &r.Ops[0]
	}
	require.Equal(t, command.OK, apply(command.Command{Op: command.Op{Put: &command.Put{Key: "deep", IgnoreValue: true}}}).Code)
}
