// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"flag"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/run"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func put(key string) command.Op { return command.Op{Put: &command.Put{Key: key}} }

func get(key, end string) command.Op { return command.Op{Get: &command.Get{Key: key, End: end}} }

func del(key, end string) command.Op { return command.Op{Delete: &command.Delete{Key: key, End: end}} }

func txn(ops ...command.Op) command.Op { return nest(command.Txn{Then: ops}) }

func nest(t command.Txn) command.Op { return command.Op{Txn: &t} }

// nested returns transactions nested to this depth.
func nested(depth int) command.Op {
	op := txn()
	for range depth - 1 {
		op = txn(op)
	}
	return op
}

// operations returns one operation of every kind with every field set.
func operations() []command.Op {
	p := command.Op{Put: &command.Put{Key: "key", Value: "value\x00\xff", Lease: -7, PrevKV: true, IgnoreValue: true, IgnoreLease: true}}
	g := command.Op{Get: &command.Get{
		Key: "from", End: "to", Revision: math.MaxInt64, Limit: 10, SortBy: command.SortByValue, Order: command.SortDescend,
		KeysOnly: true, CountOnly: true, MinModRevision: 1, MaxModRevision: 2, MinCreateRevision: 3, MaxCreateRevision: math.MinInt64,
	}}
	d := command.Op{Delete: &command.Delete{Key: "from", End: "\x00", PrevKV: true}}
	t := nest(command.Txn{
		Compares: []command.Compare{
			{Key: "a", End: "b", Target: command.Lease, Op: command.NotEqual, Int: -1, Text: "text"},
			{Key: "c"},
		},
		Then: []command.Op{p, g, txn(d)},
		Else: []command.Op{d, txn()},
	})
	return []command.Op{p, g, d, t}
}

// proposals returns one proposal of every kind with every field set.
func proposals() (all []command.Proposal) {
	var commands []command.Command
	for _, op := range operations() {
		commands = append(commands, command.Command{Op: op})
	}
	commands = append(commands,
		command.Command{Compact: &command.Compact{Revision: 1234}},
		command.Command{Grant: &command.Grant{ID: -5, TTL: 10_000_000_000}},
		command.Command{Revoke: &command.Revoke{ID: 1 << 40}},
		command.Command{Expire: &command.Expire{IDs: []int64{3, 0, -3}, Term: 9}},
		command.Command{Register: true, Applied: 8},
		command.Command{Term: true, Epoch: 1 << 63},
		command.Command{Enroll: &command.Enroll{ID: 1 << 63, Name: "n", Addr: "n:1", Incarnation: 2, Voter: true, Run: run.Number{Count: 4, Draw: 1 << 63}, Term: 9,
			Start: 1 << 63, Described: true, Metadata: "m"}},
		command.Command{Alarm: &command.Alarm{Member: 1 << 63, Kind: 2, Clear: true}},
		command.Command{Auth: &command.Auth{
			Action: command.RoleGrantPermission, User: "u", Role: "r", Hash: "h", NoPassword: true,
			Permission: command.Permission{Access: command.ReadWrite, Key: "from", End: "to"},
		}},
		command.Command{As: &command.As{User: "u", Revision: 1 << 63}, Op: put("k")},
	)
	for i, c := range commands {
		all = append(all, command.Proposal{Proposer: math.MaxUint64 - uint64(i), Seq: uint64(i + 300), Lowest: uint64(i + 1), Command: c})
	}
	return all
}

func keyValue() mvcc.KeyValue {
	return mvcc.KeyValue{Key: "key", Value: strings.Repeat("v", 200), CreateRevision: 2, ModRevision: 5, Version: 3, Lease: -9}
}

// result returns a result with every field set and nested results.
func result() *command.Result {
	return &command.Result{
		Code: command.UnknownProposer, Revision: 7, CompactRevision: -1, KVs: []mvcc.KeyValue{keyValue(), {}, {Key: "\x00"}},
		Count: 12, More: true, Succeeded: true, Ops: []command.Result{{Code: command.Compacted, Ops: []command.Result{{Count: 1}}}, {}},
	}
}

// fields records, for every field of every struct in v, whether some value sets it.
func fields(v reflect.Value, set map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			fields(v.Elem(), set)
		}
	case reflect.Slice:
		for i := range v.Len() {
			fields(v.Index(i), set)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().String() + "." + v.Type().Field(i).Name
			set[name] = set[name] || !v.Field(i).IsZero()
			fields(v.Field(i), set)
		}
	}
}

// The samples could not show a missing field in an encoding if they did not set it.
func TestSamplesSetEveryField(t *testing.T) {
	set := map[string]bool{}
	fields(reflect.ValueOf(proposals()), set)
	fields(reflect.ValueOf(result()), set)
	for _, name := range []string{"command.Get.Limit", "command.Compare.Text", "command.Result.Ops", "mvcc.KeyValue.Lease", "command.Expire.IDs"} {
		require.Contains(t, set, name)
	}
	for name, is := range set {
		require.True(t, is, "no sample sets %s", name)
	}
}

// entry returns an entry of these proposals.
func entry(proposals ...command.Proposal) []byte {
	e := command.NewEntry()
	for i := range proposals {
		e.Add(&proposals[i])
	}
	return e.Bytes()
}

// decode returns the proposals of an entry.
func decode(b []byte) ([]command.Proposal, error) { return command.DecodeEntry(b) }

// stream returns blocks of these records.
func stream(t testing.TB, records ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := command.NewBlockWriter(&b)
	for _, r := range records {
		require.NoError(t, w.Record(func(b []byte) []byte { return append(b, r...) }))
	}
	n, err := w.Close()
	require.NoError(t, err)
	require.EqualValues(t, b.Len(), n)
	return b.Bytes()
}

// records returns the records of a stream.
func records(b []byte) (all [][]byte, err error) {
	err = command.ReadBlocks(bytes.NewReader(b), func(r []byte) error {
		all = append(all, bytes.Clone(r))
		return nil
	})
	return all, err
}

// allocated returns the number of bytes that fn allocates.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
