// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A place is a session's place in a queue: a key right under the queue's name, attached to the session's
// lease. The oldest is at the head. It is the mechanism of Mutex and Election.
type place struct {
	s    *Session
	name string // of the queue
	key  string
	rev  int64 // that created the key, once the place is taken
}

// newPlace chooses a key of its own under a name, so that two places of one session differ.
func newPlace(s *Session, name string) (*place, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return &place{s: s, name: name, key: fmt.Sprintf("%s/%v-%08x", name, s.Lease(), rand.Uint32())}, nil
}

func checkName(name string) error {
	if name == "" {
		return fmt.Errorf("%w: the name of a lock or an election is empty", ErrInvalidOption)
	}
	return nil
}

// isPlace reports whether a key is a place under a name. Keys of a name that continues this one, as
// "a/b" continues "a", are not.
func isPlace(name, key string) bool {
	lease, chance, _ := strings.Cut(strings.TrimPrefix(key, name+"/"), "-")
	_, leaseErr := strconv.ParseUint(lease, 16, 64)
	_, chanceErr := strconv.ParseUint(chance, 16, 32)
	return leaseErr == nil && chanceErr == nil && len(chance) == 8
}

// places returns the first places under a name, at most so many, in the order of the options, and the
// revision of that. It reads no more than it needs as long as no other name continues this one.
func places(ctx context.Context, n *Node, name string, most int, opts ...GetOption) ([]KeyValue, int64, error) {
	if err := checkName(name); err != nil {
		return nil, 0, err
	}
	for limit := int64(most); ; limit *= 16 {
		r, err := n.Get(ctx, name+"/", append(opts[:len(opts):len(opts)], WithPrefix(), WithLimit(limit))...)
		if err != nil {
			return nil, 0, err
		}
		found := slices.DeleteFunc(r.KVs, func(kv KeyValue) bool { return !isPlace(name, kv.Key) })
		if len(found) >= most || !r.More {
			return found[:min(most, len(found))], r.Revision, nil
		}
	}
}

// enter takes the last place and waits there. If that fails, the place is given up, and the error tells
// who has what was waited for.
func (p *place) enter(ctx context.Context, val string, wait func(context.Context) error) error {
	err := p.take(ctx, val)
	if err == nil {
		err = p.stay(ctx, wait)
	}
	switch {
	case errors.Is(err, ErrLocked):
	case err != nil && ctx.Err() != nil && p.s.Err() == nil:
		err = p.s.Node().ContextError(ctx)
	default:
		return err
	}
	// What this node knows is told without asking: nothing may be left to wait with.
	first, _, readErr := places(context.WithoutCancel(ctx), p.s.Node(), p.name, 1, WithSort(SortByCreateRevision, SortAscend), WithSerializable())
	if readErr != nil || len(first) == 0 || first[0].Key == p.key {
		return err
	}
	return NewHeldError(p.name, first[0], err)
}

// stay waits at a place. If that fails, the place is given up.
func (p *place) stay(ctx context.Context, wait func(context.Context) error) error {
	ctx, cancel := p.s.WorkContext(ctx)
	defer cancel()
	err := wait(ctx)
	if err == nil {
		err = p.s.Err() // the session may have ended meanwhile
	}
	if err != nil {
		p.abandon()
	}
	return err
}

// take takes the last place. When it is given up, the key goes.
func (p *place) take(ctx context.Context, val string) error {
	put := OpPut(p.key, val, WithLease(p.s.Lease()))
	r, err := p.s.CommitOrUndo(p.s.Node().Txn(ctx).If(Compare(CreateRevision(p.key), "=", 0)).Then(put), OpDelete(p.key))
	if err != nil {
		return err
	}
	if !r.Succeeded {
		return fmt.Errorf("%w: %s was there already", ErrNotOwner, p.key)
	}
	p.rev = r.Revision
	return nil
}

// wait returns when the place is at the head and, by a read of that moment, still there.
func (p *place) wait(ctx context.Context) error {
	for {
		before, rev, err := p.before(ctx)
		if before == "" || err != nil {
			return err
		}
		for _, err := range p.s.Node().Watch(ctx, before, WithRevision(rev+1), WithFilterPut()) {
			if err != nil && !errors.Is(err, ErrCompacted) {
				return err
			}
			break // it is gone, or it is time to look again
		}
	}
}

// try returns ErrLocked unless the place is at the head.
func (p *place) try(ctx context.Context) error {
	before, _, err := p.before(ctx)
	if before != "" {
		err = ErrLocked
	}
	return err
}

// before returns the key of the place before this one, if there is one, and the revision of that. This
// place was still there at that moment.
func (p *place) before(ctx context.Context) (key string, rev int64, err error) {
	found, rev, err := places(ctx, p.s.Node(), p.name, 2,
		WithMaxCreateRevision(p.rev), WithSort(SortByCreateRevision, SortDescend), WithKeysOnly())
	switch {
	case err != nil:
		return "", 0, err
	case len(found) == 0 || found[0].Key != p.key || found[0].CreateRevision != p.rev:
		return "", 0, fmt.Errorf("%w: %s was removed", ErrNotOwner, p.key)
	case len(found) == 2:
		key = found[1].Key
	}
	return key, rev, nil
}

// guard holds while the place is there; for a place that was not taken, never.
func (p *place) guard() Comparison {
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
func (p *place) abandon() { go p.s.CleanUp(OpDelete(p.key)) }

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
		for _, err := range p.s.Node().Watch(ctx, p.key, WithRevision(r.Revision+1), WithFilterPut()) {
			if err == nil {
				return ErrNotOwner
			}
			if !errors.Is(err, ErrCompacted) {
				return err
			}
		}
	}
}

// passes reports whether a call that failed with err may succeed later, with the same arguments and the
// same session: the node was overloaded or had no space, or the outcome was unknown and has been undone.
func passes(err error) bool {
	return errors.Is(err, ErrOverloaded) || errors.Is(err, ErrNoSpace) || errors.Is(err, ErrMaybeApplied)
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
