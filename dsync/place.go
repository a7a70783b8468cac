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

// take takes a place, if the condition holds; else it returns nil. When ctx ends first, the place goes.
func take(ctx context.Context, s *coterie.Session, prefix, val string, cond ...coterie.Cmp) (*place, error) {
	p := &place{s: s, key: fmt.Sprintf("%s%v-%08x", prefix, s.Lease(), rand.Uint32()), val: val}
	cond = append(cond, coterie.Compare(coterie.CreateRevision(p.key), "=", 0))
	r, err := s.Commit(s.Node().Txn(ctx).If(cond...).Then(p.put()), coterie.OpDelete(p.key))
	if err != nil || !r.Succeeded {
		return nil, err
	}
	p.rev = r.Revision
	return p, nil
}

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
func (p *place) abandon() { go p.s.Undo(coterie.OpDelete(p.key)) }

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
