// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/coterie-kv/coterie"
)

// A place is a key of its own under a prefix, attached to a session's lease. It says that somebody
// is there, and, by the revision that created it, since when. Those who wait are in that order.
type place struct {
	s        *coterie.Session
	key, val string
	rev      int64 // that created the key
}

// take takes a place, if the condition holds; else it returns nil. When ctx ends while the outcome
// is open, the place goes as soon as that is known: to delete it at once might come before the put.
func take(ctx context.Context, s *coterie.Session, prefix, val string, cond ...coterie.Cmp,
) (*place, error) {
	if err := context.Cause(s.Context()); err != nil {
		return nil, err
	}
	p := &place{s: s, key: fmt.Sprintf("%s%v-%08x", prefix, s.Lease(), rand.Uint32()), val: val}
	type outcome struct {
		*coterie.TxnResponse
		err error
	}
	known, left := make(chan outcome), make(chan struct{})
	defer close(left)
	go func() {
		vacant := coterie.Compare(coterie.CreateRevision(p.key), "=", 0)
		r, err := s.Node().Txn(context.WithoutCancel(ctx)).If(append(cond, vacant)...).Then(p.put()).Commit()
		select {
		case known <- outcome{r, err}:
		case <-left:
			if maybe(err) {
				p.remove()
			}
		}
	}()
	var o outcome
	select {
	case o = <-known:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	switch {
	case errors.Is(o.err, coterie.ErrLeaseNotFound):
		return nil, fmt.Errorf("%w: %w", coterie.ErrSessionExpired, o.err)
	case o.err != nil:
		if maybe(o.err) {
			p.abandon()
		}
		return nil, o.err
	case !o.Succeeded:
		return nil, nil
	}
	p.rev = o.Revision
	return p, nil
}

// maybe reports whether a write may have been applied that ended so. What was refused for good, for
// its size for instance, must not be followed by a deletion, which would be refused for ever.
func maybe(err error) bool { return err == nil || errors.Is(err, coterie.ErrMaybeApplied) }

func (p *place) put() coterie.Op { return coterie.OpPut(p.key, p.val, coterie.WithLease(p.s.Lease())) }

// look reads, at one moment, whether the place is still there, and what else is asked for.
func (p *place) look(ctx context.Context, ops ...coterie.Op) (rev int64, found []coterie.OpResponse, err error) {
	r, err := p.s.Node().Txn(ctx).Then(append([]coterie.Op{coterie.OpGet(p.key)}, ops...)...).Commit()
	if err != nil {
		return 0, nil, err
	}
	if own := r.Responses[0].Get.KVs; len(own) == 0 || own[0].CreateRevision != p.rev {
		return 0, nil, p.lost()
	}
	return r.Revision, r.Responses[1:], nil
}

// await returns when nobody under a prefix was there before this place, which is still there. It
// waits for the last of those, so that one who leaves wakes only whoever comes next.
func (p *place) await(ctx context.Context, prefix string) error {
	for {
		rev, found, err := p.look(ctx, coterie.OpGet(prefix, coterie.WithPrefix(), coterie.WithMaxCreateRev(p.rev-1),
			coterie.WithSort(coterie.SortByCreateRevision, coterie.SortDescend), coterie.WithLimit(1)))
		if err != nil {
			return err
		}
		ahead := found[0].Get.KVs
		if len(ahead) == 0 {
			return nil
		}
		if err := changed(ctx, p.s.Node(), ahead[0].Key, rev, coterie.WithFilterPut()); err != nil {
			return err
		}
	}
}

// guard holds while the place is there.
func (p *place) guard() coterie.Cmp {
	return coterie.Compare(coterie.CreateRevision(p.key), "=", p.rev)
}

// write changes something on the condition that the place is there.
func (p *place) write(ctx context.Context, op coterie.Op) error {
	r, err := p.s.Node().Txn(ctx).If(p.guard()).Then(op).Commit()
	if err == nil && !r.Succeeded {
		return p.lost()
	}
	return err
}

// leave gives the place up.
func (p *place) leave(ctx context.Context) error { return p.write(ctx, coterie.OpDelete(p.key)) }

// lost is the error of a place that is gone.
func (p *place) lost() error {
	return fmt.Errorf("%w: %s is gone", coterie.ErrNotOwner, p.key)
}

// abandon sees to it that the place goes, though whoever wanted it has gone already.
func (p *place) abandon() { go p.remove() }

// remove deletes the key, as soon as the node takes writes, unless it closes: those behind a place
// that was forgotten would wait as long as the session lives.
func (p *place) remove() {
	var pause backoff
	for {
		if _, err := p.s.Node().Delete(context.Background(), p.key); err == nil {
			return
		}
		select {
		case <-pause.wait():
		case <-p.s.Node().Done():
			return
		}
	}
}

// changed returns after the first event of a key that came after a revision, or when it is time to
// look again since history was compacted.
func changed(ctx context.Context, n *coterie.Node, key string, after int64, opts ...coterie.WatchOption) error {
	for _, err := range n.Watch(ctx, key, append(opts, coterie.WithRev(after+1))...) {
		if err != nil && !errors.Is(err, coterie.ErrCompacted) {
			return err
		}
		break
	}
	return nil
}

// bind returns a context that ends with ctx or with the session, with the cause of either.
func bind(ctx context.Context, s *coterie.Session) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if ended := context.Cause(s.Context()); ended != nil {
		cancel(ended) // at once, and not when the goroutine of AfterFunc comes to it
	}
	stop := context.AfterFunc(s.Context(), func() { cancel(context.Cause(s.Context())) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}
