// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
)

const maxOps = 128

// either returns a transaction with two branches.
func either(then, els []command.Op) command.Op { return nest(command.Txn{Then: then, Else: els}) }

// many returns this many operations that do not conflict.
func many(n int) []command.Op { return slices.Repeat([]command.Op{get("k", "")}, n) }

func compares(n int) []command.Compare { return slices.Repeat([]command.Compare{{Key: "k"}}, n) }

func TestSyntax(t *testing.T) {
	for _, c := range []struct {
		name string
		op   command.Op
		want error // nil is valid
	}{
		{"put", put("k"), nil},
		{"put of the least key", put("\x00"), nil},
		{"put without a key", put(""), command.ErrEmptyKey},
		{"get", get("k", ""), nil},
		{"get without a key", get("", ""), command.ErrEmptyKey},
		{"get up to an end without a key", get("", "z"), command.ErrEmptyKey},
		{"get of everything", get("\x00", "\x00"), nil},
		{"get of an empty range", get("b", "a"), nil},
		{"delete", del("k", ""), nil},
		{"delete without a key", del("", ""), command.ErrEmptyKey},
		{"delete up to an end without a key", del("", "z"), command.ErrEmptyKey},
		{"delete of an empty range", del("b", "b"), nil},
		{"empty transaction", txn(), nil},
		{"compare", nest(command.Txn{Compares: compares(1)}), nil},
		{"compare without a key", nest(command.Txn{Compares: []command.Compare{{Key: "a"}, {}}}), command.ErrEmptyKey},
		{"compare of a range without a key", nest(command.Txn{Compares: []command.Compare{{End: "z"}}}), command.ErrEmptyKey},
		{"no key in then", txn(put("a"), put("")), command.ErrEmptyKey},
		{"no key in else", either(nil, []command.Op{del("", "")}), command.ErrEmptyKey},
		{"no key deep in one", txn(txn(txn(get("", "")))), command.ErrEmptyKey},
		{"nothing", command.Op{}, command.ErrInvalid},
		{"nothing in then", txn(command.Op{}), command.ErrInvalid},
		{"nothing in else", either(nil, []command.Op{{}}), command.ErrInvalid},

		{"ignore both", command.Op{Put: &command.Put{Key: "k", IgnoreValue: true, IgnoreLease: true}}, nil},
		{"IgnoreValue with a value", command.Op{Put: &command.Put{Key: "k", Value: "v", IgnoreValue: true}}, command.ErrInvalid},
		{"IgnoreLease with a lease", command.Op{Put: &command.Put{Key: "k", Lease: -1, IgnoreLease: true}}, command.ErrInvalid},
		{"IgnoreValue with a lease", command.Op{Put: &command.Put{Key: "k", Lease: 1, IgnoreValue: true}}, nil},
		{"IgnoreLease with a value", command.Op{Put: &command.Put{Key: "k", Value: "v", IgnoreLease: true}}, nil},
		{"IgnoreValue with a value, in a transaction", txn(command.Op{Put: &command.Put{Key: "k", Value: "v", IgnoreValue: true}}), command.ErrInvalid},

		{"last sort", command.Op{Get: &command.Get{Key: "k", SortBy: command.SortByValue, Order: command.SortDescend}}, nil},
		{"unknown sort target", command.Op{Get: &command.Get{Key: "k", SortBy: command.SortByValue + 1}}, command.ErrInvalid},
		{"unknown sort order", command.Op{Get: &command.Get{Key: "k", Order: command.SortDescend + 1}}, command.ErrInvalid},
		{"unknown sort in a transaction", txn(command.Op{Get: &command.Get{Key: "k", Order: 255}}), command.ErrInvalid},
		{"negative limit", command.Op{Get: &command.Get{Key: "k", Limit: -1}}, command.ErrInvalid},
		{"negative revision", command.Op{Get: &command.Get{Key: "k", Revision: -1}}, nil},
		{"last compare", nest(command.Txn{Compares: []command.Compare{{Key: "k", Target: command.Lease, Op: command.NotEqual}}}), nil},
		{"unknown compare target", nest(command.Txn{Compares: []command.Compare{{Key: "k", Target: command.Lease + 1}}}), command.ErrInvalid},
		{"unknown compare", nest(command.Txn{Compares: []command.Compare{{Key: "k", Op: command.NotEqual + 1}}}), command.ErrInvalid},

		{"deepest", nested(deepest), nil},
		{"too deep", nested(deepest + 1), command.ErrInvalid},
		{"too deep in else", either(nil, []command.Op{nested(deepest)}), command.ErrInvalid},
	} {
		err := command.Validate(&c.op, maxOps)
		if c.want == nil {
			require.NoError(t, err, c.name)
		} else {
			require.ErrorIs(t, err, c.want, c.name)
		}
	}
}

func TestOperationLimit(t *testing.T) {
	for _, c := range []struct {
		name          string
		txn           command.Txn
		limit, actual int64 // 0 is valid
	}{
		{"as many as allowed", command.Txn{Compares: compares(maxOps), Then: many(maxOps), Else: many(maxOps)}, 0, 0},
		{"too many compares", command.Txn{Compares: compares(maxOps + 1)}, maxOps, maxOps + 1},
		{"too many in then", command.Txn{Then: many(maxOps + 1)}, maxOps, maxOps + 1},
		{"too many in else", command.Txn{Else: many(maxOps + 7)}, maxOps, maxOps + 7},
		{"the largest counts", command.Txn{Compares: compares(130), Then: many(200), Else: many(140)}, maxOps, 200},

		{"nested, as many as one leaves", command.Txn{Then: []command.Op{txn(many(maxOps - 1)...)}}, 0, 0},
		{"nested, more than one leaves", command.Txn{Then: []command.Op{txn(many(maxOps)...)}}, maxOps - 1, maxOps},
		{"nested in else, more than one leaves", command.Txn{Else: []command.Op{txn(many(maxOps)...)}}, maxOps - 1, maxOps},
		{"as many as compares leave", command.Txn{Compares: compares(100), Then: []command.Op{txn(many(28)...)}}, 0, 0},
		{"more than compares leave", command.Txn{Compares: compares(100), Then: []command.Op{txn(many(29)...)}}, 28, 29},
		{"more than the other branch leaves", command.Txn{Then: []command.Op{txn(many(29)...)}, Else: many(100)}, 28, 29},
		{"siblings do not share", command.Txn{Then: []command.Op{txn(many(126)...), txn(many(126)...)}}, 0, 0},
		{"compares of the nested one", command.Txn{Compares: compares(100), Then: []command.Op{nest(command.Txn{Compares: compares(29)})}}, 28, 29},
		{"as many as two leave", command.Txn{Then: []command.Op{txn(append(many(9), txn(many(maxOps-11)...))...)}}, 0, 0},
		{"more than two leave", command.Txn{Then: []command.Op{txn(append(many(9), txn(many(maxOps-10)...))...)}}, maxOps - 11, maxOps - 10},
		{"nothing left for an empty transaction", command.Txn{Compares: compares(maxOps), Then: []command.Op{txn()}}, 0, 0},
		{"nothing left", command.Txn{Compares: compares(maxOps), Then: []command.Op{txn(get("k", ""))}}, 0, 1},
	} {
		err := command.Validate(&command.Op{Txn: &c.txn}, maxOps)
		if c.actual == 0 {
			require.NoError(t, err, c.name)
			continue
		}
		var limit *command.LimitError
		require.ErrorAs(t, err, &limit, c.name)
		require.Equal(t, command.LimitError{Limit: c.limit, Actual: c.actual}, *limit, c.name)
		require.Contains(t, err.Error(), "operations")
	}
}

func TestKeyIsWrittenOnceInTransaction(t *testing.T) {
	ops := func(ops ...command.Op) []command.Op { return ops }
	for _, c := range []struct {
		name string
		ops  []command.Op
		twin bool // it has a duplicate
	}{
		{"two keys", ops(put("a"), put("b")), false},
		{"put twice", ops(put("a"), put("b"), put("a")), true},
		{"put and get", ops(get("a", ""), put("a"), get("a", "")), false},
		{"deleted twice", ops(del("a", ""), del("a", ""), del("a", "c"), txn(del("b", ""))), false},
		{"put, then deleted", ops(put("a"), del("a", "")), true},
		{"deleted, then put", ops(del("a", ""), put("a")), true},
		{"put in a range that is deleted", ops(put("b"), del("a", "c")), true},
		{"put at the beginning of one", ops(del("a", "c"), put("a")), true},
		{"put at the end of one", ops(del("a", "c"), put("c")), false},
		{"put before one", ops(del("b", "c"), put("a")), false},
		{"put in one without end", ops(del("b", "\x00"), put("z")), true},
		{"put before one without end", ops(del("b", "\x00"), put("a")), false},
		{"the least key", ops(del("\x00", "\x00"), put("\x00")), true},
		{"put in an empty one", ops(del("c", "a"), put("b")), false},
		{"put next to a deleted key", ops(del("a", ""), put("a\x00")), false},

		{"put by it and a nested one", ops(put("a"), txn(put("a"))), true},
		{"put by a nested one and it", ops(txn(put("a")), put("a")), true},
		{"put by it and the else of a nested one", ops(put("a"), either(nil, ops(put("a")))), true},
		{"put by it, deleted by a nested one", ops(put("a"), txn(del("a", ""))), true},
		{"put by it, deleted by the else of a nested one", ops(either(nil, ops(del("\x00", "\x00"))), put("a")), true},
		{"deleted by it, put by a nested one", ops(del("a", "b"), txn(put("a"))), true},
		{"put by a nested one, deleted by it", ops(txn(put("a")), del("a", "b")), true},
		{"deleted by it, put by the else of a nested one", ops(either(nil, ops(put("a"))), del("a", "b")), true},
		{"far apart", ops(put("a"), txn(txn(txn(put("a"))))), true},
		{"far apart, deleted", ops(txn(txn(txn(del("a", "")))), put("a")), true},

		{"both branches of a nested one", ops(either(ops(put("a")), ops(put("a")))), false},
		{"put by one branch, deleted by the other", ops(either(ops(put("a")), ops(del("a", "")))), false},
		{"both branches of a nested one, and it", ops(either(ops(put("a")), ops(put("a"))), put("a")), true},
		{"twice in a branch of a nested one", ops(txn(put("a"), put("a"))), true},
		{"twice in the else of a nested one", ops(either(nil, ops(put("a"), del("a", "")))), true},

		{"siblings", ops(txn(put("a")), txn(put("b"))), false},
		{"siblings that put", ops(txn(put("a")), txn(put("a"))), true},
		{"branches of siblings that put", ops(txn(put("a")), either(nil, ops(put("a")))), true},
		{"else of siblings that put", ops(either(nil, ops(put("a"))), either(nil, ops(put("a")))), true},
		{"a branch of the first, both of the second", ops(either(nil, ops(put("a"))), either(ops(put("a")), ops(put("a")))), true},
		{"siblings, the first deletes", ops(txn(del("a", "")), txn(put("a"))), true},
		{"siblings, the else of the first deletes", ops(either(nil, ops(del("a", ""))), either(nil, ops(put("a")))), true},
		// This gap in the rule exists in etcd, too.
		{"siblings, the second deletes", ops(txn(put("a")), txn(del("a", ""))), false},
		{"siblings, the else of the second deletes", ops(either(nil, ops(put("a"))), either(nil, ops(del("a", "")))), false},
	} {
		for branch, op := range map[string]command.Op{
			"then":      {Txn: &command.Txn{Then: c.ops}},
			"else":      {Txn: &command.Txn{Else: c.ops}},
			"nested":    txn(nest(command.Txn{Then: c.ops})),
			"both":      either(c.ops, c.ops),
			"with more": either(append(ops(get("g", ""), put("!")), c.ops...), ops(put("y"))),
		} {
			err := command.Validate(&op, maxOps)
			if c.twin {
				require.ErrorIs(t, err, command.ErrDuplicateKey, "%s, %s", c.name, branch)
			} else {
				require.NoError(t, err, "%s, %s", c.name, branch)
			}
		}
	}
}

func TestSizesAreLimited(t *testing.T) {
	commands := []command.Command{{Op: command.Op{Put: &command.Put{Key: "key", Value: strings.Repeat("v", 100)}}}}
	commands = append(commands, command.Command{As: &command.As{User: "alice"}, Op: commands[0].Op})
	for _, op := range operations() {
		commands = append(commands, command.Command{Op: op})
	}
	commands = append(commands, command.Command{Auth: &command.Auth{Action: command.UserAdd, User: strings.Repeat("u", 100)}})
	commands = append(commands, command.Command{Op: txn(command.Op{Put: &command.Put{Key: "k", Value: strings.Repeat("v", 1000)}})})
	var many command.Txn
	for i := range 1000 {
		key := strconv.Itoa(i)
		many.Compares = append(many.Compares, command.Compare{Key: key, Target: command.ModRevision, Int: 1 << 30})
		many.Then = append(many.Then, put(key), get(key, key), del(key, key))
	}
	commands = append(commands, command.Command{Op: nest(many)})
	for _, c := range commands {
		encoded := len((&command.Proposal{Command: c}).Append(nil))
		size, err := command.CheckSize(&c, math.MaxInt)
		require.NoError(t, err)
		require.InDelta(t, encoded, size, 40+float64(encoded)/3)
		_, err = command.CheckSize(&c, size)
		require.NoError(t, err)
		_, err = command.CheckSize(&c, size-1)
		var limit *command.LimitError
		require.True(t, errors.As(err, &limit), "%v", err)
		require.Equal(t, command.LimitError{Bytes: true, Limit: int64(size - 1), Actual: int64(size)}, *limit)
		require.Contains(t, err.Error(), "bytes")
	}
	for _, p := range proposals() {
		if p.Command.Op == (command.Op{}) && p.Command.Auth == nil {
			_, err := command.CheckSize(&p.Command, 0)
			require.NoError(t, err, "the cluster's own commands are not limited")
		}
	}
}
