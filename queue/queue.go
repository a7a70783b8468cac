// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/coterie-kv/coterie"
)

// A Queue is a line of items, shared by all who know its name, on any node. Its methods may be
// called concurrently. Share one Queue in a process: its takers take turns in looking and waiting,
// so that hundreds cost what one does.
//
// Without a quorum every call blocks until its ctx ends. Items wait in memory, and on the disks, of
// every node; they outlive all processes and sessions.
type Queue struct {
	s     *coterie.Session
	keys  keys
	taker chan struct{} // has a value unless a taker looks or waits
}

// keys are those of a queue, below its name.
type keys struct {
	all    string // prefix of all of them
	items  string // prefix: an item is at items + priority/revision-chance/name
	claims string // prefix: who has taken an item, with the rest of its key
	names  string // prefix: the keys of items that have names
	open   string // there while the gate is open
}

// New returns the Queue of a name; nothing is asked of the cluster. Items that are taken from it go
// back with the end of the session. Keys below name + "/" are its own.
func New(s *coterie.Session, name string) *Queue {
	q := &Queue{s: s, taker: make(chan struct{}, 1), keys: keys{
		all: name + "/", items: name + "/item/", claims: name + "/claim/", names: name + "/name/", open: name + "/open",
	}}
	q.taker <- struct{}{}
	return q
}

// An Option is a property of an item.
type Option func(*properties)

type properties struct {
	priority int16
	name     string
}

// WithPriority has an item taken before all of lower priority. The default is 0.
func WithPriority(priority int16) Option { return func(p *properties) { p.priority = priority } }

// WithName gives an item a name, of which there is one at a time in the queue: for [WhenNamed], and
// to enqueue again after an error. The name is free again when the item is acknowledged.
func WithName(name string) Option { return func(p *properties) { p.name = name } }

// Enqueue adds an item behind all of its priority whose Enqueue has returned, anywhere. Items whose
// calls overlap come in either order. It blocks until this node has applied it: a read and one
// write.
//
// Errors: ErrExists; those of a transaction. After coterie.ErrMaybeApplied the item may be in the
// queue: with a name, enqueue it again; if it was done meanwhile, it is done again.
func (q *Queue) Enqueue(ctx context.Context, val string, opts ...Option) error {
	var p properties
	for _, opt := range opts {
		opt(&p)
	}
	n := q.s.Node()
	// Items that are there were made at earlier revisions, with numbers that are earlier still.
	now, err := n.Get(ctx, q.keys.items, coterie.WithCountOnly())
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%s%05d/%019d-%08x/%s",
		q.keys.items, math.MaxInt16-int(p.priority), now.Revision, rand.Uint32(), p.name)
	cond := []coterie.Cmp{missing(key)}
	ops := []coterie.Op{coterie.OpPut(key, val)}
	if p.name != "" {
		cond = append(cond, missing(q.keys.names+p.name))
		ops = append(ops, coterie.OpPut(q.keys.names+p.name, key))
	}
	r, err := n.Txn(ctx).If(cond...).Then(ops...).Commit()
	if err == nil && !r.Succeeded {
		return ErrExists
	}
	return err
}

// Dequeue takes the first item that nobody has, and waits for one if need be. Callers of one Queue
// are served in their order; between Queues there is none. When ctx ends first, and it is not known
// yet whether an item was taken, that is given back as soon as it is. One read and one write an
// item, and seldom another write for one that others took at the same moment.
//
// Errors: ctx's cause; coterie.ErrSessionExpired; ErrNoSpace, ErrOverloaded, ErrClosed.
func (q *Queue) Dequeue(ctx context.Context) (*Item, error) {
	ctx, cancel := bind(ctx, q.s)
	defer cancel()
	select {
	case <-q.taker:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { q.taker <- struct{}{} }()
	for {
		item, rev, err := q.try(ctx)
		if item != nil || err != nil {
			return item, err
		}
		if err := q.watch(ctx, rev, q.frees); err != nil {
			return nil, err
		}
	}
}

// TryDequeue takes the first item that nobody has.
//
// Errors: ErrEmpty when there is none, and those of Dequeue.
func (q *Queue) TryDequeue(ctx context.Context) (*Item, error) {
	ctx, cancel := bind(ctx, q.s)
	defer cancel()
	item, _, err := q.try(ctx)
	if item == nil && err == nil {
		err = ErrEmpty
	}
	return item, err
}

// try returns an item, or the revision at which there was none.
func (q *Queue) try(ctx context.Context) (*Item, int64, error) {
	for {
		free, rev, err := q.look(ctx, alternatives)
		if len(free) == 0 || err != nil {
			return nil, rev, err
		}
		item, err := q.claim(ctx, free)
		if item != nil || err != nil {
			return item, 0, err
		}
	}
}

// Peek returns the value of the first item that nobody has, and leaves it: another may take it at
// any moment. It is a linearizable read.
//
// Errors: ErrEmpty when there is none, and those of Get.
func (q *Queue) Peek(ctx context.Context) (string, error) {
	free, _, err := q.look(ctx, 1)
	if err != nil {
		return "", err
	}
	if len(free) == 0 {
		return "", ErrEmpty
	}
	return free[0].Value, nil
}

// Len returns how many items wait, and how many are taken and not acknowledged. It is a
// linearizable read, which costs next to nothing.
//
// Errors: those of Get.
func (q *Queue) Len(ctx context.Context) (waiting, taken int64, err error) {
	r, err := q.s.Node().Txn(ctx).Then(
		coterie.OpGet(q.keys.items, coterie.WithPrefix(), coterie.WithCountOnly()),
		coterie.OpGet(q.keys.claims, coterie.WithPrefix(), coterie.WithCountOnly()),
	).Commit()
	if err != nil {
		return 0, 0, err
	}
	taken = r.Responses[1].Get.Count
	return max(r.Responses[0].Get.Count-taken, 0), taken, nil
}

// look returns the first items that nobody has, at most so many, and the revision of that.
func (q *Queue) look(ctx context.Context, most int) ([]coterie.KeyValue, int64, error) {
	n := q.s.Node()
	claims, err := n.Get(ctx, q.keys.claims, coterie.WithPrefix(), coterie.WithKeysOnly())
	if err != nil {
		return nil, 0, err
	}
	claimed := make(map[string]bool, len(claims.KVs))
	for _, kv := range claims.KVs {
		claimed[strings.TrimPrefix(kv.Key, q.keys.claims)] = true
	}
	// This node has that revision. What has changed since, a claim notices.
	var free []coterie.KeyValue
	for kv, err := range n.Range(ctx, q.keys.items, coterie.WithPrefix(), coterie.WithSerializable()) {
		if err != nil {
			return nil, 0, err
		}
		if claimed[strings.TrimPrefix(kv.Key, q.keys.items)] {
			continue
		}
		if free = append(free, kv); len(free) == most {
			break
		}
	}
	return free, claims.Revision, nil
}

// watch returns when something happened, after a revision, that is of interest, or when it is time
// to look again since history was compacted.
func (q *Queue) watch(ctx context.Context, after int64, interesting func([]coterie.Event) bool) error {
	for r, err := range q.s.Node().Watch(ctx, q.keys.all, coterie.WithPrefix(), coterie.WithRev(after+1)) {
		if errors.Is(err, coterie.ErrCompacted) {
			return nil
		}
		if err != nil || interesting(r.Events) {
			return err
		}
	}
	return nil
}

// frees reports whether events of one revision have left an item to be taken: a new one, or one
// whose claim is gone while it is not.
func (q *Queue) frees(events []coterie.Event) bool {
	gone := map[string]bool{}
	for _, e := range events {
		if key, ok := strings.CutPrefix(e.KV.Key, q.keys.items); ok && e.Type == coterie.EventDelete {
			gone[key] = true
		}
	}
	for _, e := range events {
		if strings.HasPrefix(e.KV.Key, q.keys.items) && e.Type == coterie.EventPut {
			return true
		}
		if key, ok := strings.CutPrefix(e.KV.Key, q.keys.claims); ok && e.Type == coterie.EventDelete && !gone[key] {
			return true
		}
	}
	return false
}
