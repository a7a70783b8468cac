// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"fmt"
	"strconv"

	"github.com/coterie-kv/coterie"
)

// A DoubleBarrier keeps a fixed number of participants together, on any node: none begins before all have
// entered, and none continues before all have left. Then the next round may begin. Its methods may be called
// concurrently; each Enter is one participant.
//
// A round costs each participant two writes, and one more write to begin it. A participant that crashes counts as
// inside until its session's lease ends. Until then a round may begin with it, and the others of that round wait for
// it when they leave. If no round has begun by then, another participant can take its place. A DoubleBarrier is
// not for a number of participants that changes, nor for work in which the failure of one participant must stop
// the others.
type DoubleBarrier struct {
	s     *coterie.Session
	name  string
	in    line
	begun string
	size  int64
}

// NewDoubleBarrier returns the DoubleBarrier of a name for a number of participants. It does not contact the
// cluster. All participants must give the same number. Its keys are name + "/begun", and those below
// name + "/in/".
func NewDoubleBarrier(s *coterie.Session, name string, participants int64) *DoubleBarrier {
	return &DoubleBarrier{s: s, name: name, in: newLine(name + "/in/"), begun: name + "/begun", size: participants}
}

// A Round is the part of one participant in a round of a [DoubleBarrier].
type Round struct {
	p    *place
	in   line
	last int64 // create revision of the last place that belongs to the round
}

// Enter waits until all participants have entered. If it fails, the participant has not entered, or, if the
// round began at that moment, it has left.
//
// Errors: ErrFull if as many participants are inside, or some of an earlier round have not left;
// coterie.ErrInvalidOption for a number of participants below 1, or an empty name; ctx's cause, with the number
// of those that have entered; coterie.ErrSessionExpired; coterie.ErrNotOwner if the key of this participant was
// deleted; coterie.ErrNoSpace, coterie.ErrOverloaded, coterie.ErrClosed.
func (b *DoubleBarrier) Enter(ctx context.Context) (*Round, error) {
	if err := checkName(b.name); err != nil {
		return nil, err
	}
	if b.size < 1 {
		return nil, fmt.Errorf("%w: a double barrier for %d participants", coterie.ErrInvalidOption, b.size)
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

// incomplete returns ctx's error with the number of participants that have entered. It reads this node's copy
// without contacting the cluster, because ctx has ended.
func (b *DoubleBarrier) incomplete(ctx context.Context) error {
	n := b.s.Node()
	err := n.ContextError(ctx)
	r, readErr := n.Txn(context.WithoutCancel(ctx)).Then(b.in.get(coterie.WithKeysOnly(), coterie.WithSerializable())).Commit()
	if readErr != nil {
		return err
	}
	return fmt.Errorf("%w: %d of %d had entered %q", err, len(b.in.only(r.Responses[0].Get.KVs)), b.size, b.name)
}

// clear deletes the mark of a round that has begun, if all its participants have left.
func (b *DoubleBarrier) clear(ctx context.Context) error {
	n := b.s.Node()
	r, err := n.Get(ctx, b.begun)
	if err != nil || len(r.KVs) == 0 {
		return err
	}
	// Nobody can enter while the mark exists, so an empty line stays empty until the mark is deleted.
	left, err := b.in.empty(ctx, n)
	if err != nil || !left {
		return err
	}
	same := coterie.Compare(coterie.CreateRevision(b.begun), "=", r.KVs[0].CreateRevision)
	_, err = n.Txn(ctx).If(same).Then(coterie.OpDelete(b.begun)).Commit()
	return err
}

// begin waits until the round of a place has begun. It returns the create revision of the round's last place.
// The participant at that place writes this revision as the mark that the round has begun; later places do not
// belong to the round.
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

// Leave leaves the round and waits until all its participants have left. After an error it may be called again.
// The end of the session leaves the round, too; Leave still waits for the others then.
//
// Errors: ctx's cause; coterie.ErrMaybeApplied, coterie.ErrNoSpace, coterie.ErrOverloaded, coterie.ErrClosed.
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
