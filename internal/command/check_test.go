// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/wire"
)

// decoded is Check implemented with DecodeEntry and Validate.
func decoded(entry []byte) error {
	all, err := command.DecodeEntry(entry)
	if err != nil {
		return err
	}
	for i := range all {
		switch c := &all[i].Command; {
		case c.Grant != nil && c.Grant.TTL <= 0:
			return command.ErrInvalid
		case c.Op != command.Op{}:
			if err := command.Validate(&c.Op, math.MaxInt); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkAgrees checks that Check agrees with decoding and validating. Check may reject more encodings that
// no Append writes, such as a repeated field.
func checkAgrees(t *testing.T, e []byte) {
	t.Helper()
	want, got := decoded(e), command.Check(e)
	if got == nil || want != nil {
		require.Equal(t, want == nil, got == nil, "decoding: %v; Check: %v", want, got)
		return
	}
	all, err := decode(e)
	require.NoError(t, err)
	require.NoError(t, command.Check(entry(all...)), "refused by Check: %v", got)
}

func TestCheckAgreesWithDecoding(t *testing.T) {
	ops := append(operations(), nested(deepest), nested(deepest+1), txn(put("")), txn(put("a"), put("a")),
		txn(put("a"), txn(del("a", ""))), either([]command.Op{put("a")}, []command.Op{put("a")}), txn(command.Op{}),
		command.Op{Get: &command.Get{Key: "k", Order: 9}}, command.Op{Get: &command.Get{Key: "k", Limit: -1}},
		command.Op{Put: &command.Put{Key: "k", Value: "v", IgnoreValue: true}},
		command.Op{Put: &command.Put{Key: "k", Lease: -1, IgnoreLease: true}},
		nest(command.Txn{Compares: []command.Compare{{Key: "k", Op: 9}}}), nest(command.Txn{Compares: []command.Compare{{}}}))
	for _, op := range ops {
		checkAgrees(t, entry(command.Proposal{Proposer: 1, Command: command.Command{Op: op}}))
	}
	for _, p := range proposals() {
		e := entry(p)
		checkAgrees(t, e)
		for i := range e { // each cut and each flipped bit, with a valid checksum
			checkAgrees(t, sealed(e[min(5, i):i]))
			damaged := append([]byte(nil), e[5:]...)
			if i < len(damaged) {
				damaged[i] ^= 1 << (i % 8)
				checkAgrees(t, sealed(damaged))
			}
		}
	}
	for name, e := range map[string][]byte{
		"two kinds": sealed(wire.Prefixed(nil, func(b []byte) []byte { return wire.Bool(wire.Bool(b, 24, true), 25, true) })),
		"no kind":   sealed(wire.Prefixed(nil, func(b []byte) []byte { return wire.Uint(b, 1, 7) })),
		"no command of a user": sealed(wire.Prefixed(nil, func(b []byte) []byte {
			return wire.Message(b, 30, func(b []byte) []byte { return wire.Text(b, 1, "u") })
		})),
		"two commands of a user": sealed(wire.Prefixed(nil, func(b []byte) []byte {
			b = (&command.Proposal{Command: command.Command{As: &command.As{User: "u"}, Op: put("k")}}).Append(b)
			return (&command.Proposal{Command: command.Command{Op: del("k", "")}}).Append(b)
		})),
		"a user's command inside of a user's": sealed(wire.Prefixed(nil, func(b []byte) []byte {
			return wire.Message(b, 30, (&command.Proposal{Command: command.Command{As: &command.As{}, Op: put("k")}}).Append)
		})),
		"a user ends leases": sealed(wire.Prefixed(nil, func(b []byte) []byte {
			return wire.Message(b, 30, (&command.Proposal{Command: command.Command{Expire: &command.Expire{Term: 1}}}).Append)
		})),
		"a user's unknown change": sealed(wire.Prefixed(nil, func(b []byte) []byte {
			return wire.Message(b, 30, func(b []byte) []byte {
				return wire.Message(b, 29, func(b []byte) []byte { return wire.Uint(b, 1, 99) })
			})
		})),
		"not one": sealed(wire.Prefixed(nil, func(b []byte) []byte {
			return wire.Message(wire.Uint(b, 24, 0), 40, func(b []byte) []byte { return b })
		})),
	} {
		require.Error(t, command.Check(e), name)
		checkAgrees(t, e)
	}
}

func FuzzCheck(f *testing.F) {
	for _, p := range proposals() {
		f.Add(entry(p)[5:])
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkAgrees(t, sealed(b)) })
}

func TestCheckDoesNotAllocate(t *testing.T) {
	e := entry(command.Proposal{Proposer: 1, Command: command.Command{Op: put("k")}},
		command.Proposal{Proposer: 1, Command: command.Command{Op: nest(command.Txn{
			Compares: compares(2), Then: []command.Op{get("k", ""), put("k")}, Else: []command.Op{get("k", "")},
		})}})
	require.NoError(t, command.Check(e))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = command.Check(e) }))
}

func BenchmarkCheck(b *testing.B) {
	p := command.Proposal{Proposer: 1, Seq: 1, Command: command.Command{Op: command.Op{Put: &command.Put{
		Key: "a key of some length", Value: string(make([]byte, 256)),
	}}}}
	e := entry(p, p, p, p, p, p, p, p)
	for name, check := range map[string]func([]byte) error{"check": command.Check, "decode": decoded} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := check(e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
