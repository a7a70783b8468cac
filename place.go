// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A place is a session's place in a queue: a key directly below the queue's name, attached to the session's
// lease. The oldest place is the head of the queue: it has the lock, or leads. Mutex and Election are built
// on places.
type place struct {
	s    *Session
	name string // of the queue
	key  string
	rev  int64 // create revision of the key; 0 before the place is taken
}

// newPlace chooses a new key under a name, so that two places of one session differ. It does not take the
// place yet.
func newPlace(s *Session, name string) (*place, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	var random [4]byte
	binary.BigEndian.PutUint32(random[:], rand.Uint32())
	return &place{s: s, name: name, key: keyPrefix(s, name) + hex.EncodeToString(random[:])}, nil
}

// keyPrefix returns the prefix of the keys of a session's places under a name.
func keyPrefix(s *Session, name string) string { return name + "/" + s.Lease().String() + "-" }

func checkName(name string) error {
	if name == "" {
		return fmt.Errorf("%w: the name of a lock or an election is empty", ErrInvalidOption)
	}
	return nil
}

// isPlace reports whether a key is a place under a name. Keys under a name that continues this one, as
// "a/b" continues "a", are not.
func isPlace(name, key string) bool {
	lease, random, _ := strings.Cut(strings.TrimPrefix(key, name+"/"), "-")
	_, leaseErr := strconv.ParseUint(lease, 16, 64)
	_, randomErr := strconv.ParseUint(random, 16, 32)
	return leaseErr == nil && randomErr == nil && len(random) == 8
}

// places returns the first places under a name, at most limit of them, in the order that opts ask for, and
// the revision at which it read them. It reads no more than it needs as long as no other name continues
// this one.
func places(ctx context.Context, n *Node, name string, limit int, opts ...GetOption) ([]KeyValue, int64, error) {
	if err := checkName(name); err != nil {
		return nil, 0, err
	}
	for read := int64(limit); ; read *= 16 {
		r, err := n.Get(ctx, name+"/", append(opts[:len(opts):len(opts)], WithPrefix(), WithLimit(read))...)
		if err != nil {
			return nil, 0, err
		}
		found := slices.DeleteFunc(r.KVs, func(kv KeyValue) bool { return !isPlace(name, kv.Key) })
		if len(found) >= limit || !r.More {
			return found[:min(limit, len(found))], r.Revision, nil
		}
	}
}

// head returns the place at the head of the queue of a name, if there is one, and the revision at which it
// read it.
func head(ctx context.Context, n *Node, name string, opts ...GetOption) (kv KeyValue, found bool, rev int64, err error) {
	kvs, rev, err := places(ctx, n, name, 1, append(opts, WithSort(SortByCreateRevision, SortAscend))...)
	if err != nil || len(kvs) == 0 {
		return KeyValue{}, false, rev, err
	}
	return kvs[0], true, rev, nil
}

// ownPlaces returns the places that the session's lease has under a name, the oldest first.
func ownPlaces(ctx context.Context, s *Session, name string) ([]*place, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	r, err := s.Node().Get(ctx, keyPrefix(s, name), WithPrefix(), WithSort(SortByCreateRevision, SortAscend))
	if err != nil {
		return nil, err
	}
	var own []*place
	for _, kv := range r.KVs {
		if isPlace(name, kv.Key) && kv.Lease == s.Lease() {
			own = append(own, &place{s: s, name: name, key: kv.Key, rev: kv.CreateRevision})
		}
	}
	return own, nil
}

// enter takes the last place of the queue and waits there. If it fails, it gives up the place, and its error
// names the holder that it waited for.
func (p *place) enter(ctx context.Context, val string, wait func(context.Context) error) error {
	alone, err := p.take(ctx, val)
	switch {
	case err != nil:
	case alone:
		err = p.keep(nil)
	default:
		err = p.stay(ctx, wait)
	}
	switch {
	case errors.Is(err, ErrLocked):
	case err != nil && ctx.Err() != nil && p.s.Err() == nil:
		err = p.s.Node().ContextError(ctx)
	default:
		return err
	}
	// A serializable read, because there may be no time left to ask the leader.
	first, found, _, readErr := head(context.WithoutCancel(ctx), p.s.Node(), p.name, WithSerializable())
	if readErr != nil || !found || first.Key == p.key {
		return err
	}
	return NewHeldError(p.name, first, err)
}

// stay waits at a place. If it fails, it gives up the place.
func (p *place) stay(ctx context.Context, wait func(context.Context) error) error {
	ctx, cancel := p.s.WorkContext(ctx)
	defer cancel()
	return p.keep(wait(ctx))
}

// keep returns err, or the reason if the session has ended meanwhile. If there is an error, keep gives up the place.
func (p *place) keep(err error) error {
	if err == nil {
		err = p.s.Err()
	}
	if err != nil {
		p.abandon()
	}
	return err
}

// take takes the last place of the queue, and reports whether it knows that the place is the only one. If take fails,
// no key is left.
func (p *place) take(ctx context.Context, val string) (alone bool, err error) {
	n := p.s.Node()
	ops := []Op{
		OpPut(p.key, val, WithLease(p.s.Lease())),
		// If the queue was empty, the place is its head, and no read is needed. Counting the keys costs every node little,
		// however long the queue is. A key of another name that continues this one counts too, which costs a read.
		OpGet(p.name+"/", WithPrefix(), WithCountOnly()),
	}
	if n.Limits().MaxTxnOps < len(ops) {
		ops = ops[:1]
	}
	r, err := p.s.CommitOrUndo(n.Txn(ctx).If(Compare(CreateRevision(p.key), Equal, 0)).Then(ops...), OpDelete(p.key))
	if err != nil {
		return false, err
	}
	if !r.Succeeded {
		return false, fmt.Errorf("%w: %s exists already", ErrNotOwner, p.key)
	}
	p.rev = r.Revision
	return len(r.Responses) > 1 && r.Responses[1].Get.Count == 1, nil
}

// wait returns when the place is the head of the queue and, by a read of that moment, still exists.
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
			break // the key is gone, or the history is: look again
		}
	}
}

// try returns ErrLocked unless the place is the head of the queue.
func (p *place) try(ctx context.Context) error {
	before, _, err := p.before(ctx)
	if before != "" {
		err = ErrLocked
	}
	return err
}

// before returns the key of the place before this one, or "" if this is the head, and the revision at which
// it read that. If this place no longer existed then, it returns ErrNotOwner.
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

// guard returns a condition that holds while the place exists. For a place that was not taken it never
// holds.
func (p *place) guard() Comparison {
	if p.rev == 0 {
		return Compare(CreateRevision(p.key), Less, 0)
	}
	return Compare(CreateRevision(p.key), Equal, p.rev)
}

// write executes an operation if the place still exists, and returns ErrNotOwner otherwise.
func (p *place) write(ctx context.Context, op Op) error {
	r, err := p.s.Node().Txn(ctx).If(p.guard()).Then(op).Commit()
	if err == nil && !r.Succeeded {
		err = ErrNotOwner
	}
	return err
}

// leave gives up the place. ErrNotOwner means that it was lost before.
func (p *place) leave(ctx context.Context) error { return p.write(ctx, OpDelete(p.key)) }

// abandon deletes the key in the background, for a caller that does not wait for it.
func (p *place) abandon() { go p.s.CleanUp(OpDelete(p.key)) }

// workContext returns a context that carries the guard of a place and ends with ctx, with the returned function,
// or with the place's session. If p is nil, it has ended with ErrNotOwner.
func workContext(ctx context.Context, p *place) (context.Context, context.CancelFunc) {
	if p == nil {
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(ErrNotOwner)
		return ctx, func() {}
	}
	return p.s.WorkContext(ContextWithGuard(ctx, p.guard()))
}

// run calls fn with a context that carries the place's guard and ends with ctx, with the session, or when
// the key is removed. It returns fn's error, and in lost the reason if the context had ended when fn
// returned.
func (p *place) run(ctx context.Context, fn func(context.Context, int64) error) (lost, err error) {
	bound, unbind := workContext(ctx, p)
	defer unbind()
	inner, cancel := context.WithCancelCause(bound)
	var watching sync.WaitGroup
	watching.Go(func() { cancel(p.lost(inner)) })
	err = fn(inner, p.rev)
	if lost = p.s.Err(); lost == nil {
		lost = context.Cause(inner)
	}
	if lost == nil && err != nil && !errors.Is(err, ErrStopCampaign) && !p.held(inner) {
		// A write that the guard rejected may have informed fn before the watch informs this call.
		if lost = context.Cause(inner); lost == nil {
			lost = ErrNotOwner
		}
	}
	cancel(nil)
	watching.Wait()
	return lost, err
}

// held reports whether the key still belongs to the place, as far as is known before ctx ends.
func (p *place) held(ctx context.Context) bool {
	r, err := p.s.Node().Get(ctx, p.key)
	return err == nil && len(r.KVs) > 0 && r.KVs[0].CreateRevision == p.rev
}

// lost waits until the key has been removed, and returns ErrNotOwner, or until ctx ends, and returns its
// error.
func (p *place) lost(ctx context.Context) error {
	for {
		// Read first: after a long wait the key may be older than the history that a watch can read.
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
// same session: the node was overloaded or had no space, or the outcome was unknown and is being undone.
func passes(err error) bool {
	return errors.Is(err, ErrOverloaded) || errors.Is(err, ErrNoSpace) || errors.Is(err, ErrMaybeApplied)
}

// hopeless reports whether a repeated call would always fail with err, with any session.
func hopeless(err error) bool {
	return errors.Is(err, ErrClosed) || errors.Is(err, ErrTTLRange) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrInvalidOption)
}

// The first pause between two attempts, and the longest.
const (
	retryPause    = 100 * time.Millisecond
	maxRetryPause = 30 * time.Second
)

// sleep waits for d, or until ctx ends or the node closes.
func sleep(ctx context.Context, n *Node, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	case <-n.Done():
	}
}

// settleTime is how long a call waits for its cleanup after its ctx has ended.
const settleTime = 5 * time.Millisecond

// settle runs fn and waits for it until ctx ends, and settleTime longer. Then fn continues in the
// background.
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
