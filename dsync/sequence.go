// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"fmt"
	"math"

	"github.com/coterie-kv/coterie"
)

// A Sequence creates keys with growing numbers: name + "/" + 20 digits. It never uses a number twice, even if
// the number's key was deleted, and the order of the keys is the order in which they were created. Its methods
// may be called concurrently, on any node. Share one Sequence in a process: its callers take turns.
//
// An Append is one write. It is a second one, after a first that changes nothing, if this Sequence does not know
// the last number: after another instance's Append, and at its first use of a name that has keys. The key name
// stores the last number. If it is deleted, the numbers start again and overwrite existing keys. A Sequence is
// not needed for keys that only have to be unique, nor for handing out work: package queue does that without
// contention.
type Sequence struct{ c *cell }

// NewSequence returns the Sequence of a name. It does not contact the cluster.
func NewSequence(n *coterie.Node, name string) *Sequence { return &Sequence{newCell(n, name)} }

// Append creates the next key with a value, and returns the key. It blocks until the write is applied. With
// [coterie.WithLease] the key ends with a session.
//
// Errors: ErrForeignValue; ErrOverflow after the last number; those of a transaction. After
// coterie.ErrMaybeApplied the key may have been created; another call creates another key.
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
