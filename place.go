// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// A place is a session's place in a queue: a key under a prefix, attached to its lease. The oldest
// is at the head. It is the mechanism of Mutex and Election.
type place struct {
	s      *Session
	prefix string
	key    string
	rev    int64 // that created the key, once the place is taken
}

// newPlace chooses a key of its own under a prefix, so that two places of one session differ.
func newPlace(s *Session, prefix string) *place {
	prefix += "/"
	return &place{s: s, prefix: prefix, key: fmt.Sprintf("%s%v-%08x", prefix, s.Lease(), rand.Uint32())}
}

// take takes the last place, if the condition holds. When it is given up, the key goes.
func (p *place) take(ctx context.Context, val string, cond ...Cmp) (bool, error) {
	free := append(cond, Compare(CreateRevision(p.key), "=", 0))
	r, err := p.s.Commit(p.s.Node().Txn(ctx).If(free...).Then(OpPut(p.key, val, WithLease(p.s.Lease()))), OpDelete(p.key))
	if err != nil || !r.Succeeded {
		return false, err
	}
	p.rev = r.Revision
	return true, nil
}

// wait returns when the place is at the head and, by a read of that moment, still there.
func (p *place) wait(ctx context.Context) error {
	ctx, cancel := p.s.Bind(ctx)
	defer cancel()
	for {
		r, err := p.s.Node().Txn(ctx).Then(
			OpGet(p.key),
			OpGet(p.prefix, WithPrefix(), WithMaxCreateRev(p.rev-1), WithSort(SortByCreateRevision, SortDescend), WithLimit(1)),
		).Commit()
		if err != nil {
			return err
		}
		if own := r.Responses[0].Get.KVs; len(own) == 0 || own[0].CreateRevision != p.rev {
			return fmt.Errorf("%w: %s was removed", ErrNotOwner, p.key)
		}
		ahead := r.Responses[1].Get.KVs
		if len(ahead) == 0 {
			return p.s.Err()
		}
		for _, err := range p.s.Node().Watch(ctx, ahead[0].Key, WithRev(r.Revision+1), WithFilterPut()) {
			if err != nil && !errors.Is(err, ErrCompacted) {
				return err
			}
			break // it is gone, or it is time to look again
		}
	}
}

// guard holds while the place is there; for a place that was not taken, never.
func (p *place) guard() Cmp {
	if p.rev == 0 {
		return Compare(CreateRevision(p.key), "<", 0)
	}
	return Compare(CreateRevision(p.key), "=", p.rev)
}

// leave gives the place up. ErrNotOwner says that it was lost before.
func (p *place) leave(ctx context.Context) error {
	r, err := p.s.Node().Txn(ctx).If(p.guard()).Then(OpDelete(p.key)).Commit()
	switch {
	case err != nil:
		return err
	case !r.Succeeded:
		return ErrNotOwner
	}
	return nil
}

// abandon sees to it that the key goes, though whoever wanted it has gone already.
func (p *place) abandon() { go p.s.Undo(OpDelete(p.key)) }

// held reports whether the key is still the place's, as far as can be told before ctx ends.
func (p *place) held(ctx context.Context) bool {
	r, err := p.s.Node().Get(ctx, p.key)
	return err == nil && len(r.KVs) > 0 && r.KVs[0].CreateRevision == p.rev
}

// lost returns, with the reason, when somebody has removed the key by hand, or ctx has ended.
func (p *place) lost(ctx context.Context) error {
	for {
		// Whoever has waited for long may have a key that is older than the history.
		r, err := p.s.Node().Get(ctx, p.key)
		if err != nil {
			return err
		}
		if len(r.KVs) == 0 || r.KVs[0].CreateRevision != p.rev {
			return ErrNotOwner
		}
		for _, err := range p.s.Node().Watch(ctx, p.key, WithRev(r.Revision+1), WithFilterPut()) {
			if err == nil {
				return ErrNotOwner
			}
			if !errors.Is(err, ErrCompacted) {
				return err
			}
		}
	}
}

// settleTime is how long a call whose ctx has ended waits for what it leaves behind.
const settleTime = 5 * time.Millisecond

// settle runs fn and waits for it as long as ctx lasts, and a moment more: then fn goes on alone.
func settle(ctx context.Context, fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	moment := time.NewTimer(settleTime)
	defer moment.Stop()
	select {
	case <-done:
	case <-moment.C:
	}
}
