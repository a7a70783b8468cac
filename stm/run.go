// SPDX-License-Identifier: Apache-2.0

package stm

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/coterie-kv/coterie"
)

// The average first pause between two attempts, and the longest.
const (
	minPause = time.Millisecond
	maxPause = 256 * time.Millisecond
)

// errConflict is the error of an attempt that had read a key which has changed since.
var errConflict = errors.New("stm: a key that was read has changed")

type nestedKey struct{}

// Run runs fn as a transaction, and returns the revision of its writes or, if it wrote nothing, of its reads. It may be
// called concurrently, on any node. It blocks until fn has run without a conflict and the node has applied its writes;
// without a quorum, until ctx ends. After a conflict, or if the node is overloaded, fn runs again after a growing pause.
// It should return when [Tx.Context] ends. If fn returns an error or panics, nothing is changed.
//
// Errors:
//   - that of fn; ctx's cause; ErrNested;
//   - coterie.ErrNotOwner if a condition of [Tx.If] does not hold;
//   - coterie.ErrTooManyOps if fn read or wrote more keys than Config.MaxTxnOps, and coterie.ErrTooLarge: split the
//     transaction;
//   - coterie.ErrLeaseNotFound for a lease of [Tx.PutWithLease];
//   - coterie.ErrNoSpace, coterie.ErrClosed.
//
// After all of them nothing was changed, unless the error matches coterie.ErrMaybeApplied: then the transaction may have
// been committed, and Run does not run fn again. If a transaction must be applied exactly once, let fn read and write a
// key of the request, and return if the key exists. Then Run may be called again.
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

// attempt runs fn once and commits its writes. again means that nothing was changed and that another attempt may
// succeed.
func attempt(ctx context.Context, n *coterie.Node, fn func(tx *Tx) error,
) (revision int64, again bool, err error) {
	tx := newTx(context.WithValue(ctx, nestedKey{}, true), n)
	defer func() { tx.ended = true }()
	err = fn(tx)
	switch {
	case errors.Is(tx.failed, coterie.ErrCompacted): // the revision of its first read was compacted
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
