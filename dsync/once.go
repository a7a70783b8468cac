// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"errors"
	"sync"

	"github.com/coterie-kv/coterie"
)

// A Once runs a function until it succeeds once in the life of a cluster, for a migration for example, and keeps
// its outcome for all later callers. Its methods may be called concurrently, on any node.
//
// Exactly one outcome is recorded. If a runner crashes, loses its session or fails before that, another one
// runs its function, so the effects of a function may occur more than once. Writes to the store that have
// [coterie.GuardFromContext] as a condition are made by one runner at a time. The runner costs three writes, a
// waiter two, and a call after the outcome is recorded one read. A Once is not for effects outside the store
// that must never occur twice, nor for large outcomes: they are kept for ever.
type Once struct {
	s                *coterie.Session
	name, done, turn string
}

// NewOnce returns the Once of a name. It does not contact the cluster. Its keys are name + "/done", and those
// of the [coterie.Mutex] name + "/turn". Deleting them makes the Once new again.
func NewOnce(s *coterie.Session, name string) *Once {
	return &Once{s: s, name: name, done: name + "/done", turn: name + "/turn"}
}

// errDone ends the wait for a turn because the outcome is recorded.
var errDone = errors.New("dsync: done")

// Do returns the recorded outcome. If there is none, it waits until this fn, or that of another call, has
// succeeded. Functions run one at a time, in the order of the calls, until one succeeds. The context of fn ends
// with ctx or the session; functions that return then never overlap. Only the caller of fn receives the error of
// fn; then the function of the next caller runs.
//
// Errors: that of fn; ctx's cause; coterie.ErrInvalidOption for an empty name; coterie.ErrNoSpace,
// coterie.ErrOverloaded, coterie.ErrClosed. After coterie.ErrSessionExpired, coterie.ErrNotOwner and
// coterie.ErrMaybeApplied fn may have run; another Do returns its outcome if it was recorded.
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
			return // after a compaction, too: then the turn reads the outcome
		}
	})
	defer watch.Wait()
	defer end(nil)
	err = coterie.NewMutex(o.s, o.turn).Do(pending, func(ctx context.Context, _ int64) error {
		outcome, err = o.run(ctx, fn)
		return err
	})
	// Another runner has recorded an outcome, though fn may have returned the end of its context as an error.
	if err != nil && errors.Is(context.Cause(pending), errDone) && o.s.Err() == nil {
		outcome, _, err = o.look(ctx)
	}
	return outcome, err
}

// run runs fn and records its outcome, unless an outcome is recorded already.
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

// look returns the outcome, or the revision at which none was recorded. The revision is 0 if there is an
// outcome.
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
