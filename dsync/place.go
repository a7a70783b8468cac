// SPDX-License-Identifier: Apache-2.0

package dsync

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/coterie-kv/coterie"
)

// A line is the places right under one or several prefixes. Keys of names that continue these are no
// places of it.
type line struct {
	all      string // prefix of all of them
	prefixes []string
}

func newLine(prefix string) line { return line{prefix, []string{prefix}} }

// has reports whether a key is a place of the line: the lease of a session in hex, "-", and 8 hex digits
// under a prefix.
func (l line) has(key string) bool {
	return slices.ContainsFunc(l.prefixes, func(prefix string) bool {
		own, under := strings.CutPrefix(key, prefix)
		lease, chance, _ := strings.Cut(own, "-")
		_, leaseErr := strconv.ParseUint(lease, 16, 64)
		_, chanceErr := strconv.ParseUint(chance, 16, 32)
		return under && leaseErr == nil && chanceErr == nil && len(chance) == 8
	})
}

// only returns the places of the line among some keys.
func (l line) only(kvs []coterie.KeyValue) []coterie.KeyValue {
	return slices.DeleteFunc(kvs, func(kv coterie.KeyValue) bool { return !l.has(kv.Key) })
}

// get reads the line, and keys of names that continue its prefixes.
func (l line) get(opts ...coterie.GetOption) coterie.Op {
	return coterie.OpGet(l.all, append(opts, coterie.WithPrefix())...)
}

// held adds to err, with which a call at a place ended, who holds the oldest place of the line. What this
// node knows is told without asking: nothing may be left to wait with. The place is nil if it was not
// taken.
func (l line) held(ctx context.Context, n *coterie.Node, name string, p *place, err error) error {
	r, readErr := n.Txn(context.WithoutCancel(ctx)).Then(l.get(coterie.WithSerializable(),
		coterie.WithSort(coterie.SortByCreateRevision, coterie.SortAscend))).Commit()
	if readErr != nil {
		return err
	}
	kvs := l.only(r.Responses[0].Get.KVs)
	if len(kvs) == 0 || p != nil && kvs[0].Key == p.key {
		return err
	}
	return coterie.NewHeldError(name, kvs[0], err)
}

// empty reports whether there is no place in the line.
func (l line) empty(ctx context.Context, n *coterie.Node) (bool, error) {
	r, err := n.Txn(ctx).Then(l.get(coterie.WithKeysOnly())).Commit()
	if err != nil {
		return false, err
	}
	return len(l.only(r.Responses[0].Get.KVs)) == 0, nil
}

// checkName refuses an empty name.
func checkName(name string) error {
	if name == "" {
		return fmt.Errorf("%w: an empty name", coterie.ErrInvalidOption)
	}
	return nil
}

// A place is a key of its own under a prefix, attached to a session's lease. It says that somebody
// is there, and, by the revision that created it, since when. Those who wait are in that order.
type place struct {
	s        *coterie.Session
	key, val string
	rev      int64 // that created the key
}

// take takes a place, if the condition holds; else it returns nil. When ctx ends first, the place goes.
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

// before returns the key of the last place in a line that was there before this one, if there is one, and
// the revision of that. This place was still there at that moment. It reads no more than it needs as long
// as no other name continues this one.
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

// await returns when nobody in a line was there before this place, which is still there. It waits for
// the last of those, so that one that leaves wakes only the next.
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

// guard holds while the place is there.
func (p *place) guard() coterie.Comparison {
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
func (p *place) abandon() { go p.s.CleanUp(coterie.OpDelete(p.key)) }

// changed returns after the first event of a key that came after a revision, or when it is time to
// look again since history was compacted.
func changed(ctx context.Context, n *coterie.Node, key string, after int64, opts ...coterie.WatchOption) error {
	for _, err := range n.Watch(ctx, key, append(opts, coterie.WithRevision(after+1))...) {
		if err != nil && !errors.Is(err, coterie.ErrCompacted) {
			return err
		}
		break
	}
	return nil
}
