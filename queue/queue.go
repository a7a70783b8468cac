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

// A Queue is a queue of items, shared by all that use its name, on any node. Its methods may be called concurrently.
// Share one Queue in a process: its consumers take turns to read and to wait, so hundreds of them cost as much as one.
//
// Without a quorum every call blocks until its ctx ends. Every node stores the items, in memory and on disk. They
// outlive all processes and sessions.
type Queue struct {
	s    *coterie.Session
	name string
	keys keys
	turn chan struct{} // has a value unless a consumer reads or waits
	most atomic.Int64  // number of items that one transaction may concern
}

// keys are the keys of a queue, below its name. An item has an ID, priority/revision-chance/name, and either waits in
// the line or is claimed. If it does neither, the lease of its consumer has ended, and any consumer puts it back.
type keys struct {
	all    string // prefix of all of them
	items  string // prefix: the values, by ID, until they are acknowledged
	line   string // prefix: the IDs of items that wait
	claims string // prefix: the IDs of items that are taken, attached to the leases of their consumers
	names  string // prefix: the IDs of items that have names, by name
	open   string // exists while the gate is open
}

// New returns the Queue of a name. It does not contact the cluster. Items that are taken from it return to it when the
// session ends. All calls reject an empty name with coterie.ErrInvalidOption. Config.MaxTxnOps must be at least 4.
//
// The keys are name + "/open", and those below name + "/item/", "/line/", "/claim/" and "/name/". Queues of different
// names are independent, even if one name continues the other, as "a/b" continues "a". The exception is a name that
// continues another with "/item/", "/line/" or "/claim/" and a digit: its keys are among the IDs of the other's items.
func New(s *coterie.Session, name string) *Queue {
	q := &Queue{s: s, name: name, turn: make(chan struct{}, 1), keys: keys{
		all: name + "/", items: name + "/item/", line: name + "/line/", claims: name + "/claim/",
		names: name + "/name/", open: name + "/open",
	}}
	q.turn <- struct{}{}
	q.most.Store(alternatives)
	return q
}

// check returns an error for an empty name.
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

// WithPriority sets the priority of an item. Items of higher priority are taken first. The default is 0.
func WithPriority(priority int16) EnqueueOption { return func(p *properties) { p.priority = priority } }

// maxName is the length limit of a name, which is part of every key of its item.
const maxName = 1 << 10

// WithName gives an item a name of at most 1 KiB. A queue has at most one item of a name at a time. Names serve
// [WhenNamed], and a second Enqueue after an error. The name is free again when the item is acknowledged.
func WithName(name string) EnqueueOption { return func(p *properties) { p.name = name } }

// Enqueue adds an item behind all items of its priority that were enqueued by calls that have returned, on any node.
// Items of overlapping calls may have either order. It costs a read and one write, and blocks until this node has
// applied the write.
//
// Errors: ErrExists; coterie.ErrInvalidOption for a name that is too long; those of a transaction. After
// coterie.ErrMaybeApplied the item may be in the queue. An item with a name can be enqueued again: if the first one was
// done meanwhile, it is done again.
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
	// The IDs of existing items have lower revisions: each was read before its item was created.
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

// Dequeue takes the first waiting item, and waits for one if there is none. The callers of one Queue are served in the
// order of their calls; callers of different Queues in any order. If ctx ends before it is known whether an item was
// taken, such an item is given back later.
//
// An item costs one read and one write, however many items wait or are taken. It costs another write if other consumers
// claimed the same items at the same moment, or if it puts items of lost consumers back.
//
// Errors: ctx's cause, with the number of items that wait and are taken in its text, and with coterie.ErrNoLeader if no
// leader was known; coterie.ErrSessionExpired if the session has ended; coterie.ErrInvalidOption for an empty name;
// coterie.ErrNoSpace, coterie.ErrOverloaded, coterie.ErrClosed.
func (q *Queue) Dequeue(ctx context.Context) (*Item, error) {
	item, err := q.dequeue(ctx)
	if err != nil && ctx.Err() != nil && q.s.Err() == nil {
		err = q.nothing(ctx)
	}
	return item, err
}

// nothing returns the error of a call that received no item before ctx ended. It reads this node's copy without
// contacting the cluster, because ctx has ended.
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

// dequeue implements Dequeue, and returns its errors without an explanation.
func (q *Queue) dequeue(ctx context.Context) (*Item, error) {
	ctx, cancel := q.s.WorkContext(ctx)
	defer cancel()
	select {
	case <-q.turn:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { q.turn <- struct{}{} }()
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

// TryDequeue takes the first waiting item.
//
// Errors: ErrEmpty if no item waits, and those of Dequeue.
func (q *Queue) TryDequeue(ctx context.Context) (*Item, error) {
	ctx, cancel := q.s.WorkContext(ctx)
	defer cancel()
	item, _, err := q.try(ctx)
	if item == nil && err == nil {
		err = ErrEmpty
	}
	return item, err
}

// try takes an item, or returns the revision at which no item waited.
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

// Peek returns the value of the first waiting item, and leaves it in the queue: a consumer may take it at any moment.
// It costs two reads, and a write if it puts items of lost consumers back, or if the item is done or deleted between
// the reads.
//
// Errors: ErrEmpty if no item waits, and those of Get and of a transaction.
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
		// The item was done meanwhile, or its key was deleted and its place in the line is left over.
		gone := []coterie.Comparison{missing(q.keys.items + ids[0])}
		if _, err := q.s.Node().Txn(ctx).If(gone...).Then(coterie.OpDelete(q.keys.line + ids[0])).Commit(); err != nil {
			return "", err
		}
	}
}

// Len returns how many items wait, and how many are taken but not acknowledged. It is one cheap linearizable read.
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

// look returns the IDs of the first waiting items, at most most of them, and the revision of the read. It puts items of
// lost consumers back first.
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

// shrink reports whether a transaction for several items was rejected for its size. If so, it halves the number for later
// transactions, so that the caller can try again.
func (q *Queue) shrink(err error, items int) bool {
	if items < 2 || !errors.Is(err, coterie.ErrTooManyOps) && !errors.Is(err, coterie.ErrTooLarge) {
		return false
	}
	q.most.Store(int64(items / 2))
	return true
}

// watch returns after the first interesting events that are later than a revision. It also returns if history was
// compacted, because then the caller must read again.
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

// frees reports whether the events of one revision make an item available: an item that entered the line, or an item
// that still exists after its claim was deleted.
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
