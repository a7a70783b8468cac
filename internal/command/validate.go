// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/coterie-kv/coterie/internal/mvcc"
)

// Errors of an operation before it is proposed.
var (
	ErrEmptyKey     = errors.New("command: empty key")
	ErrDuplicateKey = errors.New("command: key written twice in a transaction")
	ErrInvalid      = errors.New("command: invalid operation") // as an *InvalidError
)

// An InvalidError says why an operation is invalid. It matches ErrInvalid.
type InvalidError struct{ Reason string }

func (e *InvalidError) Error() string { return ErrInvalid.Error() + ": " + e.Reason }

// Is reports whether target is ErrInvalid.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

// A LimitError says that a transaction has too many operations, or a command too many bytes.
type LimitError struct {
	Bytes         bool // bytes, not operations
	Limit, Actual int64
}

func (e *LimitError) Error() string {
	what := "operations"
	if e.Bytes {
		what = "bytes"
	}
	return fmt.Sprintf("command: %d %s, the limit is %d", e.Actual, what, e.Limit)
}

// CheckSize returns the approximate size of a command's encoding, and a *LimitError if it exceeds limit.
func CheckSize(c *Command, limit int) (size int, err error) {
	size = commandOverhead + c.Op.size()
	if c.As != nil {
		size += len(c.As.User)
	}
	if c.Auth != nil {
		size += len(c.Auth.Append(nil))
	}
	if size > limit && !small(c) {
		return size, &LimitError{Bytes: true, Limit: int64(limit), Actual: int64(size)}
	}
	return size, nil
}

// small reports whether a command has a bounded size.
func small(c *Command) bool { return c.Op == (Op{}) && c.Auth == nil && c.As == nil }

// commandOverhead is the approximate size of a proposal beside its operation.
const commandOverhead = 22

// Validate checks an operation's syntax by etcd's rules, as far as that is possible without the store. A
// transaction may have maxOps compares, and maxOps operations in each branch. A nested transaction may
// have as many as its parent leaves of that.
//
// Errors: ErrEmptyKey, ErrDuplicateKey, *LimitError, *InvalidError.
func Validate(op *Op, maxOps int) error {
	if err := op.check(maxOps, maxDepth); err != nil {
		return err
	}
	if op.Txn == nil || !op.Txn.overlaps() {
		return nil
	}
	if _, _, err := writes(op.Txn.Then); err != nil {
		return err
	}
	_, _, err := writes(op.Txn.Else)
	return err
}

func (op *Op) check(maxOps, depth int) error {
	switch {
	case op.Put != nil:
		p := op.Put
		return judgePut(p.Key != "", p.IgnoreValue && p.Value != "", p.IgnoreLease && p.Lease != 0)
	case op.Get != nil:
		return judgeGet(op.Get.Key != "", op.Get)
	case op.Delete != nil:
		if op.Delete.Key == "" {
			return ErrEmptyKey
		}
	case op.Txn != nil:
		return op.Txn.check(maxOps, depth-1)
	default:
		return &InvalidError{"an Op without an operation"}
	}
	return nil
}

func (t *Txn) check(maxOps, depth int) error {
	if depth <= 0 {
		return &InvalidError{"transactions nest too deeply"}
	}
	most := max(len(t.Compares), len(t.Then), len(t.Else))
	if most > maxOps {
		return &LimitError{Limit: int64(maxOps), Actual: int64(most)}
	}
	for i := range t.Compares {
		c := &t.Compares[i]
		if err := judgeCompare(c.Key != "", c.Target, c.Op); err != nil {
			return err
		}
	}
	for _, ops := range [][]Op{t.Then, t.Else} {
		for i := range ops {
			if err := ops[i].check(maxOps-most, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// overlaps reports whether a branch of the transaction, or of one nested in it, has several operations that may
// write. In any other transaction no key can be written twice.
func (t *Txn) overlaps() bool {
	for _, ops := range [...][]Op{t.Then, t.Else} {
		writes := 0
		for i := range ops {
			if ops[i].Get == nil {
				writes++
			}
			if writes > 1 || ops[i].Txn != nil && ops[i].Txn.overlaps() {
				return true
			}
		}
	}
	return false
}

// judgePut is the check of a put for both Validate and Check.
func judgePut(key, ignoredValue, ignoredLease bool) error {
	switch {
	case !key:
		return ErrEmptyKey
	case ignoredValue:
		return &InvalidError{"WithIgnoreValue and a value exclude each other"}
	case ignoredLease:
		return &InvalidError{"WithIgnoreLease and WithLease exclude each other"}
	}
	return nil
}

// judgeGet is the same for a get. It does not use the strings of g.
func judgeGet(key bool, g *Get) error {
	switch {
	case !key:
		return ErrEmptyKey
	case g.SortBy > SortByValue || g.Order > SortDescend:
		return &InvalidError{"WithSort has an unknown target or order"}
	case g.Limit < 0:
		return &InvalidError{"WithLimit has a negative limit"}
	}
	return nil
}

// judgeCompare is the same for a compare.
func judgeCompare(key bool, target Target, op CompareOp) error {
	switch {
	case !key:
		return ErrEmptyKey
	case target > Lease || op > NotEqual:
		return &InvalidError{"a comparison has an unknown target or operator"}
	}
	return nil
}

// writes returns the keys that a branch may put and the ranges that it may delete, or ErrDuplicateKey if
// a key may be put twice, or put and deleted. Both branches of a nested transaction may write the same
// key, since only one of them runs. As in etcd, the puts of a nested transaction are compared with the
// deletes of earlier ones, but not with those of later ones. A delete of all keys from one on is an unbounded
// range here, too. Etcd v3.7.3 treats it as empty, so it accepts transactions that make its server panic.
func writes(ops []Op) (puts map[string]bool, deletes []*Delete, err error) {
	puts = map[string]bool{}
	for i := range ops {
		if d := ops[i].Delete; d != nil {
			deletes = append(deletes, d)
		}
	}
	for i := range ops {
		t := ops[i].Txn
		if t == nil {
			continue
		}
		then, thenDeletes, err := writes(t.Then)
		if err != nil {
			return nil, nil, err
		}
		els, elseDeletes, err := writes(t.Else)
		if err != nil {
			return nil, nil, err
		}
		for k := range then {
			if puts[k] || covered(deletes, k) {
				return nil, nil, ErrDuplicateKey
			}
		}
		for k := range els {
			if puts[k] && !then[k] || covered(deletes, k) {
				return nil, nil, ErrDuplicateKey
			}
		}
		maps.Copy(puts, then)
		maps.Copy(puts, els)
		deletes = append(append(deletes, thenDeletes...), elseDeletes...)
	}
	for i := range ops {
		if p := ops[i].Put; p != nil {
			if puts[p.Key] || covered(deletes, p.Key) {
				return nil, nil, ErrDuplicateKey
			}
			puts[p.Key] = true
		}
	}
	return puts, deletes, nil
}

func covered(deletes []*Delete, key string) bool {
	return slices.ContainsFunc(deletes, func(d *Delete) bool { return mvcc.Contains(d.Key, d.End, key) })
}
