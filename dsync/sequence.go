// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"fmt"
	"math"

	"github.com/coterie-kv/coterie"
)

// A Sequence makes keys with growing numbers: name + "/" + 20 digits. No number is given twice,
// also if its key was deleted, and keys in their order are in the order in which they were made.
// Its methods may be called concurrently, on any node; share one Sequence in a process, for its
// callers take turns.
//
// An Append costs one write, and another, which is refused, whenever this Sequence does not know
// the last number: when another's key came between, and at its first use of a name that has keys.
// The key name has the last number; whoever deletes it begins anew, over what is there. Do not use
// it where any unique key would do, nor to hand out work: package queue does that without
// contention.
type Sequence struct{ c *cell }

// NewSequence returns the Sequence of a name; nothing is asked of the cluster.
func NewSequence(n *coterie.Node, name string) *Sequence { return &Sequence{newCell(n, name)} }

// Append creates the next key with a value, and returns it. It blocks until that is applied. With
// [coterie.WithLease] the key goes with a session.
//
// Errors: ErrForeignValue; ErrOverflow after the last number; those of a transaction. After
// coterie.ErrMaybeApplied the key may have been made, and another call makes another.
func (s *Sequence) Append(ctx context.Context, val string, opts ...coterie.PutOption) (key string, err error) {
	_, err = s.c.update(ctx, func(last int64) (int64, []coterie.Op, error) {
		if last == math.MaxInt64 {
			return 0, nil, fmt.Errorf("%w: %s", ErrOverflow, s.c.key)
		}
		key = fmt.Sprintf("%s/%020d", s.c.key, last+1)
		return last + 1, []coterie.Op{coterie.OpPut(key, val, opts...)}, nil
	})
	if err != nil {
		return "", err
	}
	return key, nil
}
