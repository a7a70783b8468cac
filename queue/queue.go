// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"

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
	name  string
	keys  keys
	taker chan struct{} // has a value unless a taker looks or waits
	most  atomic.Int64  // how many items a transaction may concern
}

// keys are those of a queue, below its name. An item has an ID, priority/revision-chance/name, and waits
// in the line or is claimed. If it is neither, its taker is gone, and whoever sees that puts it back.
type keys struct {
	all    string // prefix of all of them
	items  string // prefix: the values, by ID, until they are acknowledged
	line   string // prefix: the IDs of items that wait
	claims string // prefix: the IDs of items that are taken, with their takers' leases
	names  string // prefix: the IDs of items that have names, by name
	open   string // there while the gate is open
}

// New returns the Queue of a name; nothing is asked of the cluster. Items that are taken from it go
// back with the end of the session. All calls refuse an empty name, with coterie.ErrInvalidOption.
// Config.MaxTxnOps has to be 4 at least.
//
// Its keys are name + "/open", and those below name + "/item/", "/line/", "/claim/" and "/name/". Queues of
// different names are independent, also if one continues the other, as "a/b" continues "a". One exception
// is a name that continues another with "/item/", "/line/" or "/claim/" and a digit: it is among the IDs
// of the other's items.
func New(s *coterie.Session, name string) *Queue {
	q := &Queue{s: s, name: name, taker: make(chan struct{}, 1), keys: keys{
		all: name + "/", items: name + "/item/", line: name + "/line/", claims: name + "/claim/",
		names: name + "/name/", open: name + "/open",
	}}
	q.taker <- struct{}{}
	q.most.Store(alternatives)
	return q
}

// check refuses an empty name.
func (q *Queue) check() error {
	if q.name == "" {
		return fmt.Errorf("%w: the name of a queue is empty", coterie.ErrInvalidOption)
	}
	return nil
}

// An EnqueueOption sets a property of an item that is enqueued.
type EnqueueOption func(*properties)

type properties struct {
	priority int16
	name     string
}

// WithPriority has an item taken before all of lower priority. The default is 0.
func WithPriority(priority int16) EnqueueOption { return func(p *properties) { p.priority = priority } }

// maxName bounds a name, which every key of its item has.
const maxName = 1 << 10

// WithName gives an item a name, of at most 1 KiB, of which there is one at a time in the queue: for
// [WhenNamed], and to enqueue again after an error. The name is free again when the item is
// acknowledged.
func WithName(name string) EnqueueOption { return func(p *properties) { p.name = name } }

// Enqueue adds an item behind all of its priority whose Enqueue has returned, anywhere. Items whose
// calls overlap come in either order. It blocks until this node has applied it: a read and one
// write.
//
// Errors: ErrExists; coterie.ErrInvalidOption for a name that is too long; those of a transaction. After
// coterie.ErrMaybeApplied the item may be in the queue: with a name, enqueue it again; if it was done
// meanwhile, it is done again.
func (q *Queue) Enqueue(ctx context.Context, val string, opts ...EnqueueOption) error {
	if err := q.check(); err != nil {
		return err
	}
	var p properties
	for _, opt := range opts {
		opt(&p)
	}
	if len(p.name) > maxName {
		return fmt.Errorf("%w: the name of an item has %d bytes, of %d", coterie.ErrInvalidOption, len(p.name), maxName)
	}
	n := q.s.Node()
	// Items that are there were made at earlier revisions, with numbers that are earlier still.
	now, err := n.Get(ctx, q.keys.line, coterie.WithCountOnly())
	if err != nil {
		return err
	}
	id := fmt.Sprintf("%05d/%019d-%08x/%s", math.MaxInt16-int(p.priority), now.Revision, rand.Uint32(), p.name)
	cond := []coterie.Comparison{missing(q.keys.items + id)}
	ops := []coterie.Op{coterie.OpPut(q.keys.items+id, val), coterie.OpPut(q.keys.line+id, "")}
	if p.name != "" {
		cond = append(cond, missing(q.keys.names+p.name))
		ops = append(ops, coterie.OpPut(q.keys.names+p.name, id))
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
// item, whatever waits and whatever is taken, and seldom another write: when others took the same at
// the same moment, or when takers are gone, whose items it puts back.
//
// Errors: ctx's cause, whose text then has how many items wait and are taken, and with coterie.ErrNoLeader
// when no leader was known; coterie.ErrSessionExpired; ErrNoSpace, ErrOverloaded, ErrClosed.
func (q *Queue) Dequeue(ctx context.Context) (*Item, error) {
	item, err := q.dequeue(ctx)
	if err != nil && ctx.Err() != nil && q.s.Err() == nil {
		err = q.nothing(ctx)
	}
	return item, err
}

// nothing says why a call whose ctx has ended has got no item, as far as this node knows without asking:
// nothing may be left to wait with.
func (q *Queue) nothing(ctx context.Context) error {
	err := q.s.Node().ContextError(ctx)
	r, readErr := q.s.Node().Txn(context.WithoutCancel(ctx)).Then(
		byID(q.keys.line, coterie.WithCountOnly(), coterie.WithSerializable()),
		byID(q.keys.claims, coterie.WithSerializable(), coterie.WithLimit(1),
			coterie.WithSort(coterie.SortByCreateRevision, coterie.SortAscend))).Commit()
	if readErr != nil {
		return err
	}
	waiting, taken := r.Responses[0].Get.Count, r.Responses[1].Get
	err = fmt.Errorf("%w: %d items wait in %q, and %d are taken", err, waiting, q.name, taken.Count)
	if len(taken.KVs) > 0 {
		if by, ok := coterie.ParseHolder(taken.KVs[0].Value); ok {
			err = fmt.Errorf("%w, the first by %v", err, by)
		}
	}
	return err
}

func (q *Queue) dequeue(ctx context.Context) (*Item, error) {
	ctx, cancel := q.s.WorkContext(ctx)
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
	ctx, cancel := q.s.WorkContext(ctx)
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
		ids, rev, err := q.look(ctx, q.most.Load())
		if len(ids) == 0 || err != nil {
			return nil, rev, err
		}
		item, err := q.claim(ctx, ids)
		if q.shrink(err, len(ids)) {
			continue
		}
		if item != nil || err != nil {
			return item, 0, err
		}
	}
}

// Peek returns the value of the first item that nobody has, and leaves it: another may take it at
// any moment. It is two reads, and a write when takers are gone, whose items it puts back, or when the
// item has been done or deleted between the two.
//
// Errors: ErrEmpty when there is none, and those of Get and of a transaction.
func (q *Queue) Peek(ctx context.Context) (string, error) {
	for {
		ids, _, err := q.look(ctx, 1)
		if err != nil {
			return "", err
		}
		if len(ids) == 0 {
			return "", ErrEmpty
		}
		r, err := q.s.Node().Get(ctx, q.keys.items+ids[0], coterie.WithSerializable())
		if err != nil {
			return "", err
		}
		if len(r.KVs) > 0 {
			return r.KVs[0].Value, nil
		}
		// It was done meanwhile, or somebody has deleted it, and nobody has its place in the line.
		gone := []coterie.Comparison{missing(q.keys.items + ids[0])}
		if _, err := q.s.Node().Txn(ctx).If(gone...).Then(coterie.OpDelete(q.keys.line + ids[0])).Commit(); err != nil {
			return "", err
		}
	}
}

// Len returns how many items wait, and how many are taken and not acknowledged. It is a
// linearizable read, which costs next to nothing.
//
// Errors: those of Get.
func (q *Queue) Len(ctx context.Context) (waiting, taken int64, err error) {
	if err := q.check(); err != nil {
		return 0, 0, err
	}
	r, err := q.s.Node().Txn(ctx).Then(count(q.keys.items), count(q.keys.claims)).Commit()
	if err != nil {
		return 0, 0, err
	}
	items, taken := r.Responses[0].Get.Count, r.Responses[1].Get.Count
	return items - taken, taken, nil
}

// look returns the first items that nobody has, at most so many, and the revision of that.
func (q *Queue) look(ctx context.Context, most int64) (ids []string, rev int64, err error) {
	if err := q.check(); err != nil {
		return nil, 0, err
	}
	for {
		r, err := q.s.Node().Txn(ctx).Then(count(q.keys.items), count(q.keys.claims),
			byID(q.keys.line, coterie.WithKeysOnly(), coterie.WithLimit(most))).Commit()
		if err != nil {
			return nil, 0, err
		}
		items, taken, line := r.Responses[0].Get.Count, r.Responses[1].Get.Count, r.Responses[2].Get
		if items <= taken+line.Count {
			for _, kv := range line.KVs {
				ids = append(ids, strings.TrimPrefix(kv.Key, q.keys.line))
			}
			return ids, r.Revision, nil
		}
		if err := q.mend(ctx); err != nil {
			return nil, 0, err
		}
	}
}

// shrink reports whether a transaction of so many items was refused for its size, and one of fewer may
// not be: from then on they have half as many.
func (q *Queue) shrink(err error, items int) bool {
	if items < 2 || !errors.Is(err, coterie.ErrTooManyOps) && !errors.Is(err, coterie.ErrTooLarge) {
		return false
	}
	q.most.Store(int64(items / 2))
	return true
}

// watch returns when something happened, after a revision, that is of interest, or when it is time
// to look again since history was compacted.
func (q *Queue) watch(ctx context.Context, after int64, interesting func([]coterie.Event) bool) error {
	for r, err := range q.s.Node().Watch(ctx, q.keys.all, coterie.WithPrefix(), coterie.WithRevision(after+1)) {
		if errors.Is(err, coterie.ErrCompacted) {
			return nil
		}
		if err != nil || interesting(r.Events) {
			return err
		}
	}
	return nil
}

// frees reports whether events of one revision have left an item to be taken: one that is in the line
// now, or whose claim is gone while it is not.
func (q *Queue) frees(events []coterie.Event) bool {
	done := map[string]bool{}
	for _, e := range events {
		if id, ok := strings.CutPrefix(e.KV.Key, q.keys.items); ok && e.Type == coterie.EventDelete {
			done[id] = true
		}
	}
	return slices.ContainsFunc(events, func(e coterie.Event) bool {
		id, claimed := strings.CutPrefix(e.KV.Key, q.keys.claims)
		return claimed && e.Type == coterie.EventDelete && !done[id] ||
			strings.HasPrefix(e.KV.Key, q.keys.line) && e.Type == coterie.EventPut
	})
}
