// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"errors"
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie/internal/command"
)

// A Comparison is a condition of a transaction, made by [Compare]. It is immutable.
type Comparison struct {
	cmp  command.Compare
	keys keyRange
	err  error
}

// A CompareOp is the operator of a [Comparison]. An untyped "=" is one, too.
type CompareOp string

// The operators.
const (
	Equal    CompareOp = "="
	NotEqual CompareOp = "!="
	Less     CompareOp = "<"
	Greater  CompareOp = ">"
)

// A CompareTarget is the property of a key that a [Comparison] looks at. The property has type T.
type CompareTarget[T int64 | string | LeaseID] struct {
	key    string
	target command.Target
}

// Compare compares a property of a key with v. For a missing key every property is 0, but a comparison
// of its value is false, whatever the operator. Values are compared bytewise.
func Compare[T int64 | string | LeaseID](target CompareTarget[T], op CompareOp, v T) Comparison {
	c := Comparison{cmp: command.Compare{Key: target.key, Target: target.target}}
	switch v := any(v).(type) {
	case int64:
		c.cmp.Int = v
	case LeaseID:
		c.cmp.Int = int64(v)
	case string:
		c.cmp.Text = v
	}
	switch op {
	case Equal:
		c.cmp.Op = command.Equal
	case NotEqual:
		c.cmp.Op = command.NotEqual
	case Less:
		c.cmp.Op = command.Less
	case Greater:
		c.cmp.Op = command.Greater
	default:
		c.err = fmt.Errorf("%w: %q is not a compare operator", ErrInvalidOption, op)
	}
	return c
}

// Value compares the value of a key.
func Value(key string) CompareTarget[string] { return CompareTarget[string]{key, command.Value} }

// Version compares the number of changes to a key since it was created.
func Version(key string) CompareTarget[int64] { return CompareTarget[int64]{key, command.Version} }

// CreateRevision compares the revision that created a key; 0 for a missing key.
func CreateRevision(key string) CompareTarget[int64] {
	return CompareTarget[int64]{key, command.CreateRevision}
}

// ModRevision compares the revision of the last change to a key; 0 for a missing key.
func ModRevision(key string) CompareTarget[int64] {
	return CompareTarget[int64]{key, command.ModRevision}
}

// LeaseValue compares the lease that a key is attached to; 0 for none.
func LeaseValue(key string) CompareTarget[LeaseID] {
	return CompareTarget[LeaseID]{key, command.Lease}
}

// WithPrefix applies the comparison to every key that begins with its key, and to all keys if that is
// empty. It must hold for each of them. If there are none, it is evaluated once, for a missing key.
func (c Comparison) WithPrefix() Comparison { c.keys = keyRange{kind: prefixKeys}; return c }

// WithRange applies the comparison to the keys from its key up to, but not including, end, with the
// same meaning as WithPrefix.
func (c Comparison) WithRange(end string) Comparison {
	c.keys = keyRange{kind: untilEnd, end: end}
	return c
}

// compares appends comparisons to out, which is empty.
func compares(out []command.Compare, cmps []Comparison) (_ []command.Compare, err error) {
	out = slices.Grow(out, len(cmps))
	for i := range cmps {
		c := &cmps[i]
		cmp := c.cmp
		var invalid error
		cmp.Key, cmp.End, invalid = c.keys.bounds(c.cmp.Key)
		out = append(out, cmp)
		if c.err != nil || invalid != nil {
			err = errors.Join(err, c.err, invalid)
		}
	}
	return out, err
}
