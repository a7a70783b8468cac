// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"errors"
	"sync"

	"github.com/coterie-kv/coterie"
)

// A Once does something once in the life of a cluster, as a migration is done, and keeps its
// outcome for all who ask, then and later. Its methods may be called concurrently, on any node.
//
// One outcome is recorded, ever. What fn did before that may be done again, by another: when the
// runner crashes, loses its session or fails. Writes of fn to the store that take [coterie.GuardFromContext]
// as a condition are those of one runner at a time. The runner costs three writes, whoever waits
// two, and an answer that is known a read. Do not use it for what must never be done twice outside,
// nor with an outcome that is large: it is kept for ever.
type Once struct {
	s                *coterie.Session
	name, done, turn string
}

// NewOnce returns a Once of a name; nothing is asked of the cluster. Its keys are name + "/done", and
// those of the lock name + "/turn"; without them it is as new.
func NewOnce(s *coterie.Session, name string) *Once {
	return &Once{s: s, name: name, done: name + "/done", turn: name + "/turn"}
}

// errDone ends the wait for a turn that is needed no more.
var errDone = errors.New("dsync: done")

// Do returns the outcome: at once if there is one, else when somebody's fn has returned it, maybe
// this one's. Functions run one at a time, in the order of the calls, until one succeeds; fn's
// context ends with ctx or the session, and functions that return then never overlap. An error of
// fn is returned to its own caller alone, and the next one's turn comes.
//
// Errors: fn's; ctx's cause; coterie.ErrSessionExpired, coterie.ErrNotOwner,
// coterie.ErrMaybeApplied: fn may have run, and to call Do again tells whether its outcome was
// recorded; coterie.ErrInvalidOption for an empty name; ErrNoSpace, ErrOverloaded, ErrClosed.
func (o *Once) Do(ctx context.Context, fn func(context.Context) (string, error)) (string, error) {
	if err := checkName(o.name); err != nil {
		return "", err
	}
	outcome, rev, err := o.look(ctx)
	if rev == 0 || err != nil {
		return outcome, err
	}
	pending, end := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for _, err := range o.s.Node().Watch(pending, o.done, coterie.WithRevision(rev+1), coterie.WithFilterDelete()) {
			if err == nil {
				end(errDone)
			}
			return // after a compaction, too: then the turn will tell
		}
	})
	defer watch.Wait()
	defer end(nil)
	err = coterie.NewMutex(o.s, o.turn).Do(pending, func(ctx context.Context, _ int64) error {
		outcome, err = o.run(ctx, fn)
		return err
	})
	// Another has the outcome, though fn may have called that an error of its own.
	if err != nil && errors.Is(context.Cause(pending), errDone) && o.s.Err() == nil {
		outcome, _, err = o.look(ctx)
	}
	return outcome, err
}

// run is one turn: fn's, unless it is done.
func (o *Once) run(ctx context.Context, fn func(context.Context) (string, error)) (string, error) {
	outcome, rev, err := o.look(ctx)
	if rev == 0 || err != nil {
		return outcome, err
	}
	if outcome, err = fn(ctx); err != nil {
		return "", err
	}
	first := coterie.Compare(coterie.CreateRevision(o.done), "=", 0)
	r, err := o.s.Node().Txn(ctx).If(coterie.GuardFromContext(ctx), first).Then(coterie.OpPut(o.done, outcome)).Commit()
	switch {
	case err != nil:
		return "", err
	case !r.Succeeded:
		return "", coterie.ErrNotOwner
	}
	return outcome, nil
}

// look returns the outcome, or, if there is none, the revision at which there was none.
func (o *Once) look(ctx context.Context) (outcome string, rev int64, err error) {
	r, err := o.s.Node().Get(ctx, o.done)
	if err != nil {
		return "", 0, err
	}
	if len(r.KVs) > 0 {
		return r.KVs[0].Value, 0, nil
	}
	return "", r.Revision, nil
}
