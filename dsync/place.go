// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/coterie-kv/coterie"
)

// A place is one request in a line: a key of its own, attached to a session's lease. The revision that created
// the key is its position in the line.
type place struct {
	s        *coterie.Session
	key, val string
	rev      int64 // create revision of the key
}

// take takes the last place in a line, if the conditions hold; otherwise it returns nil. If ctx ends before
// the outcome is known, the key is deleted later.
func take(ctx context.Context, s *coterie.Session, prefix, val string, cond ...coterie.Comparison) (*place, error) {
	p := &place{s: s, key: fmt.Sprintf("%s%v-%08x", prefix, s.Lease(), rand.Uint32()), val: val}
	cond = append(cond, coterie.Compare(coterie.CreateRevision(p.key), "=", 0))
	r, err := s.CommitOrUndo(s.Node().Txn(ctx).If(cond...).Then(p.put()), coterie.OpDelete(p.key))
	if err != nil || !r.Succeeded {
		return nil, err
	}
	p.rev = r.Revision
	return p, nil
}

func (p *place) put() coterie.Op { return coterie.OpPut(p.key, p.val, coterie.WithLease(p.s.Lease())) }

// look executes read operations at a single revision at which the place still exists.
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

// before returns the key of the place directly before this one in a line, or "", and the revision of the read,
// at which this place still existed. It reads one key, and more only if other names continue this one.
func (p *place) before(ctx context.Context, l line) (key string, rev int64, err error) {
	for limit := int64(1); ; limit *= 16 {
		rev, found, err := p.look(ctx, l.get(coterie.WithMaxCreateRevision(p.rev-1), coterie.WithKeysOnly(),
			coterie.WithSort(coterie.SortByCreateRevision, coterie.SortDescend), coterie.WithLimit(limit)))
		if err != nil {
			return "", 0, err
		}
		if ahead := l.only(found[0].Get.KVs); len(ahead) > 0 {
			return ahead[0].Key, rev, nil
		}
		if !found[0].Get.More {
			return "", rev, nil
		}
	}
}

// await returns when a line has no earlier place and this one still exists. It watches the place directly
// before this one, so that a release wakes only the next waiter.
func (p *place) await(ctx context.Context, l line) error {
	for {
		before, rev, err := p.before(ctx, l)
		if before == "" || err != nil {
			return err
		}
		if err := changed(ctx, p.s.Node(), before, rev, coterie.WithFilterPut()); err != nil {
			return err
		}
	}
}

// guard returns a condition that holds while the place exists.
func (p *place) guard() coterie.Comparison {
	return coterie.Compare(coterie.CreateRevision(p.key), "=", p.rev)
}

// write executes an operation if the place exists.
func (p *place) write(ctx context.Context, op coterie.Op) error {
	r, err := p.s.Node().Txn(ctx).If(p.guard()).Then(op).Commit()
	if err == nil && !r.Succeeded {
		return p.lost()
	}
	return err
}

// leave gives the place up.
func (p *place) leave(ctx context.Context) error { return p.write(ctx, coterie.OpDelete(p.key)) }

// lost returns the error for a place that does not exist any more.
func (p *place) lost() error {
	return fmt.Errorf("%w: the key %s is gone", coterie.ErrNotOwner, p.key)
}

// abandon deletes the key in the background, because the caller does not wait for it.
func (p *place) abandon() { go p.s.CleanUp(coterie.OpDelete(p.key)) }

// changed returns after the first event of a key that is later than a revision. It also returns if history was
// compacted, because then the caller must read again.
func changed(ctx context.Context, n *coterie.Node, key string, after int64, opts ...coterie.WatchOption) error {
	for _, err := range n.Watch(ctx, key, append(opts, coterie.WithRevision(after+1))...) {
		if err != nil && !errors.Is(err, coterie.ErrCompacted) {
			return err
		}
		break
	}
	return nil
}
