// SPDX-License-Identifier: Apache-2.0

// With the race detector a pool forgets objects at random.
//go:build !race

package command_test

import (
	"io"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
)

// The samples have the largest numbers in every field, so their encodings are the longest.
func TestGrownEntryIsNotMoved(t *testing.T) {
	all := puts(1000)
	for _, p := range proposals() {
		if size, _ := command.CheckSize(&p.Command, math.MaxInt); size > 0 {
			all = append(all, p)
		}
	}
	size := sizes(t, all)
	require.LessOrEqual(t, testing.AllocsPerRun(10, func() {
		e := command.NewEntry()
		e.Grow(len(all), size)
		for i := range all {
			e.Add(&all[i])
		}
		e.Bytes()
	}), 2.0, "the entry and its bytes")
}

func TestDecoderAllocatesNothing(t *testing.T) {
	all := puts(1000)
	for _, op := range operations() {
		all = append(all, command.Proposal{Proposer: 1, Command: command.Command{As: &command.As{User: "u"}, Op: op}})
	}
	all = append(all,
		command.Proposal{Proposer: 1, Command: command.Command{Grant: &command.Grant{ID: 1, TTL: 1}}},
		command.Proposal{Proposer: 1, Command: command.Command{Revoke: &command.Revoke{ID: 1}}})
	e := entry(all...)
	var d command.Decoder
	for range 2 { // the second time, each arena has one piece of memory
		reusing(t, &d, e)
	}
	require.Zero(t, testing.AllocsPerRun(10, func() { reusing(t, &d, e) }))
}

func TestAllocationsOfAResult(t *testing.T) {
	r := &command.Result{KVs: slices.Repeat([]mvcc.KeyValue{keyValue()}, 100)}
	encoded := r.Append(nil)
	require.LessOrEqual(t, testing.AllocsPerRun(10, func() { r.Append(nil) }), 1.0)
	require.LessOrEqual(t, testing.AllocsPerRun(10, func() { _, _ = command.DecodeResult(encoded) }), 102.0, "one for each key and value")
}

func TestWritingARecordAllocatesNothing(t *testing.T) {
	kv := keyValue()
	w := command.NewBlockWriter(io.Discard)
	record := func() {
		err := w.LongRecord(len(kv.Value), func(b []byte) []byte { return command.AppendVersion(b, 1, &kv) })
		require.NoError(t, err)
	}
	for range 1000 { // more than a block
		record()
	}
	require.Zero(t, testing.AllocsPerRun(1000, record))
}

func TestSizesAndChecksAllocateNothing(t *testing.T) {
	lock := nest(command.Txn{Compares: compares(1), Then: []command.Op{get("a", ""), put("k")}, Else: []command.Op{txn(put("k"))}})
	for _, op := range []command.Op{put("k"), get("k", "z"), del("k", "z"), lock} {
		c := command.Command{As: &command.As{User: "alice"}, Op: op}
		require.NoError(t, command.Validate(&c.Op, maxOps))
		require.Zero(t, testing.AllocsPerRun(100, func() {
			_, _ = command.CheckSize(&c, 1000)
			_ = command.Validate(&c.Op, maxOps)
		}))
	}
}
