// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"fmt"
	"strconv"

	"github.com/coterie-kv/coterie"
)

// A DoubleBarrier brings so many participants together, on any node: none begins before all have
// entered, and none goes on before all have left; then the next round may begin. Its methods may be
// called concurrently, and each Enter is a participant of its own.
//
// A round costs each participant two writes, and one to begin it. A participant that crashes counts
// as inside until its session's lease ends, so a round may begin with it, and those who leave wait
// for that; if none has begun by then, another may come instead. Do not use it for a number of
// participants that changes, nor where one that fails must stop the others.
type DoubleBarrier struct {
	s     *coterie.Session
	name  string
	in    line
	begun string
	size  int64
}

// NewDoubleBarrier returns a DoubleBarrier of a name, for so many participants; nothing is asked of
// the cluster. All must say the same number. Its keys are name + "/begun", and those below name + "/in/".
func NewDoubleBarrier(s *coterie.Session, name string, participants int64) *DoubleBarrier {
	return &DoubleBarrier{s: s, name: name, in: newLine(name + "/in/"), begun: name + "/begun", size: participants}
}

// A Round is one participant's part in a round of a [DoubleBarrier].
type Round struct {
	p    *place
	in   line
	last int64 // the place of the last to enter, which began it
}

// Enter waits until as many as the barrier is for have entered. When it fails, the participant has
// not entered; if that was in the moment in which the round began, it has left.
//
// Errors: ErrFull when so many are inside, or have not all left; coterie.ErrInvalidOption for a
// barrier of less than one, or an empty name; ctx's cause; coterie.ErrSessionExpired; coterie.ErrNotOwner when
// somebody deleted the key; ErrNoSpace, ErrOverloaded, ErrClosed.
func (b *DoubleBarrier) Enter(ctx context.Context) (*Round, error) {
	if err := checkName(b.name); err != nil {
		return nil, err
	}
	if b.size < 1 {
		return nil, fmt.Errorf("%w: a double barrier for %d", coterie.ErrInvalidOption, b.size)
	}
	ctx, cancel := b.s.WorkContext(ctx)
	defer cancel()
	if err := b.clear(ctx); err != nil {
		return nil, err
	}
	p, err := take(ctx, b.s, b.in.all, coterie.NewHolder(b.s.Node()).Value(), coterie.Compare(coterie.CreateRevision(b.begun), "=", 0))
	switch {
	case err != nil:
		return nil, err
	case p == nil:
		return nil, ErrFull
	}
	last, err := b.begin(ctx, p)
	if err != nil {
		p.abandon()
		if ctx.Err() != nil && b.s.Err() == nil {
			err = b.incomplete(ctx)
		}
		return nil, err
	}
	return &Round{p: p, in: b.in, last: last}, nil
}

// incomplete says how many have entered when ctx has ended, as far as this node knows without asking.
func (b *DoubleBarrier) incomplete(ctx context.Context) error {
	n := b.s.Node()
	err := n.ContextError(ctx)
	r, readErr := n.Txn(context.WithoutCancel(ctx)).Then(b.in.get(coterie.WithKeysOnly(), coterie.WithSerializable())).Commit()
	if readErr != nil {
		return err
	}
	return fmt.Errorf("%w: %d of %d had entered %q", err, len(b.in.only(r.Responses[0].Get.KVs)), b.size, b.name)
}

// clear removes what says that a round has begun which all have left.
func (b *DoubleBarrier) clear(ctx context.Context) error {
	n := b.s.Node()
	r, err := n.Get(ctx, b.begun)
	if err != nil || len(r.KVs) == 0 {
		return err
	}
	// Nobody enters a round that has begun, so a line that is found empty stays so for as long.
	left, err := b.in.empty(ctx, n)
	if err != nil || !left {
		return err
	}
	same := coterie.Compare(coterie.CreateRevision(b.begun), "=", r.KVs[0].CreateRevision)
	_, err = n.Txn(ctx).If(same).Then(coterie.OpDelete(b.begun)).Commit()
	return err
}

// begin waits until the round of a place has begun, and returns the place of the last to enter,
// which begins it and says so: those before it are the round, and who comes later is not.
func (b *DoubleBarrier) begin(ctx context.Context, p *place) (int64, error) {
	for {
		rev, found, err := p.look(ctx, coterie.OpGet(b.begun),
			b.in.get(coterie.WithMaxCreateRevision(p.rev-1), coterie.WithKeysOnly()))
		if err != nil {
			return 0, err
		}
		ahead := int64(len(b.in.only(found[1].Get.KVs)))
		switch begun := found[0].Get.KVs; {
		case len(begun) > 0:
			last, err := number(begun[0])
			if err == nil && p.rev > last {
				err = ErrFull
			}
			return last, err
		case ahead > b.size-1:
			return 0, ErrFull
		case ahead == b.size-1:
			missing := coterie.Compare(coterie.CreateRevision(b.begun), "=", 0)
			_, err = b.s.Node().Txn(ctx).If(p.guard(), missing).
				Then(coterie.OpPut(b.begun, strconv.FormatInt(p.rev, 10))).Commit()
		default:
			err = changed(ctx, b.s.Node(), b.begun, rev, coterie.WithFilterDelete())
		}
		if err != nil {
			return 0, err
		}
	}
}

// Leave leaves, and waits until all of the round have left. After an error it may be called again.
// The session's end leaves, too, and Leave then waits for the others all the same.
//
// Errors: ctx's cause, ErrMaybeApplied, ErrNoSpace, ErrOverloaded, ErrClosed.
func (r *Round) Leave(ctx context.Context) error {
	n := r.p.s.Node()
	if _, err := n.Delete(ctx, r.p.key); err != nil {
		return err
	}
	for {
		got, err := n.Txn(ctx).Then(r.in.get(coterie.WithMaxCreateRevision(r.last), coterie.WithKeysOnly(),
			coterie.WithSort(coterie.SortByCreateRevision, coterie.SortDescend))).Commit()
		if err != nil {
			return err
		}
		inside := r.in.only(got.Responses[0].Get.KVs)
		if len(inside) == 0 {
			return nil
		}
		if err := changed(ctx, n, inside[0].Key, got.Revision, coterie.WithFilterPut()); err != nil {
			return err
		}
	}
}
