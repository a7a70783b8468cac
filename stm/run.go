// SPDX-License-Identifier: Apache-2.0

package stm

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/coterie-kv/coterie"
)

// The first pause between two attempts, on average, and the longest.
const (
	minPause = time.Millisecond
	maxPause = 256 * time.Millisecond
)

// errConflict is why an attempt failed when what it had read has changed.
var errConflict = errors.New("stm: what was read has changed")

type nestedKey struct{}

// Run runs fn as a transaction, and returns its revision: that of what it wrote or, if it wrote
// nothing, read. It may be called concurrently, on any node. It blocks until fn has been run
// without another transaction in its way, and the node has applied what it wrote; without a quorum,
// until ctx ends. fn runs again after a conflict, with a pause that grows, and when the node is
// overloaded; it should return when [Tx.Context] ends.
//
// When fn returns an error, or panics, nothing is changed.
//
// Errors: fn's; ctx's cause; ErrNested; coterie.ErrNotOwner when a condition of [Tx.If] does not
// hold; coterie.ErrTooManyOps when it has read or written more keys than Config.MaxTxnOps, and
// ErrTooLarge: split it; ErrNoSpace, ErrClosed: nothing was changed. After coterie.ErrMaybeApplied
// it may have been committed, and fn is never run again by this call. A transaction that must be
// done once nevertheless reads and writes a key of its own, whose presence says that it was: then
// Run may be called again.
func Run(ctx context.Context, n *coterie.Node, fn func(tx *Tx) error) (revision int64, err error) {
	if ctx.Value(nestedKey{}) != nil {
		return 0, ErrNested
	}
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		revision, again, err := attempt(ctx, n, fn)
		if !again {
			return revision, err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// attempt runs fn once, and commits what it did. again says that nothing was changed, and that
// another attempt may succeed.
func attempt(ctx context.Context, n *coterie.Node, fn func(tx *Tx) error,
) (revision int64, again bool, err error) {
	tx := newTx(context.WithValue(ctx, nestedKey{}, true), n)
	defer func() { tx.ended = true }()
	err = fn(tx)
	switch {
	case errors.Is(tx.failed, coterie.ErrCompacted): // what it began with is too old by now
		return 0, true, tx.failed
	case err == nil:
		err = tx.failed // fn should have returned it
	}
	if err != nil {
		return 0, false, err
	}
	revision, err = tx.commit()
	return revision, errors.Is(err, errConflict) || errors.Is(err, coterie.ErrOverloaded), err
}
