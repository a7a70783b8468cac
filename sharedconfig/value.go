// SPDX-License-Identifier: Apache-2.0

package sharedconfig

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/coterie-kv/coterie"
)

// A Value is a copy of a shared value, kept current. Its methods may be called concurrently.
type Value[T any] struct {
	n      *coterie.Node
	cfg    Config[T]
	codec  codec[T]
	ctx    context.Context
	end    context.CancelCauseFunc
	ending sync.WaitGroup
	newest atomic.Pointer[generation[T]]
	saving atomic.Pointer[error] // how the last writing of the file ended

	mu   sync.Mutex
	seen int64 // the revision of the store that was looked at last
}

// A Current is a value at a moment.
type Current[T any] struct {
	// Value is the last good one. It is shared by all who load it: what it refers to must not be
	// changed.
	Value T
	// Revision of the store in which it was found. 0: it is the default, before anything was read.
	Revision int64
	// Err is a *RejectedError if what is stored now is bad; nil: it is Value.
	Err error
}

// A generation is a value while it is the newest.
type generation[T any] struct {
	Current[T]
	good   stored        // what Value was made of
	found  []int64       // the ModRevisions of what the store had, be that good or bad; nil: not looked at
	usable bool          // Value is good, be it the default
	over   chan struct{} // closed when there is a newer one
}

// Stored is what the store has under the keys at one revision.
type stored struct {
	cluster   uint64
	revision  int64
	documents []*string // nil: no such key
	modified  []int64   // the ModRevision of each; 0: no such key
}

// Open reads a value and keeps it current until Close, or until the node closes. It blocks until it
// has read what the cluster has; when ctx ends first, for want of a quorum, it goes on with the
// last good value that it can find: of this node's store, or of the file if that is newer or of
// another cluster. What the cluster has comes when there is a quorum. ctx bounds the call alone. It
// writes nothing to the store; a goroutine serves each key, and one the file.
//
// Errors: ErrInvalidOption and ErrEmptyKey; ctx's cause when there is nothing to go on with; a
// *RejectedError when what there is is bad, and the default is, too; ErrClosed.
func Open[T any](ctx context.Context, n *coterie.Node, cfg Config[T]) (*Value[T], error) {
	cfg.Keys = slices.Clone(cfg.Keys)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.File != "" {
		var err error
		if cfg.File, err = filepath.Abs(cfg.File); err != nil {
			return nil, fmt.Errorf("%w: Config.File is relative, and the working directory is unknown: %w", coterie.ErrInvalidOption, err)
		}
	}
	v := &Value[T]{n: n, cfg: cfg, codec: layers[T]{cfg.Default}}
	if cfg.Decode != nil {
		v.codec = text[T]{cfg.Default, cfg.Decode, cfg.Encode}
	}
	_, bad := v.validate(make([]*string, len(cfg.Keys)))
	v.newest.Store(&generation[T]{Current: Current[T]{Value: cfg.Default}, usable: bad == nil, over: make(chan struct{})})
	if err := v.first(ctx); err != nil {
		return nil, err
	}
	v.ctx, v.end = context.WithCancelCause(context.WithoutCancel(ctx))
	for _, key := range cfg.Keys {
		v.ending.Go(func() { v.end(v.follow(key)) })
	}
	if cfg.File != "" {
		v.ending.Go(v.save)
	}
	return v, nil
}

// first finds a value to begin with.
func (v *Value[T]) first(ctx context.Context) error {
	kept, known := loadFile(v.cfg.File, v.cfg.Keys)
	if known {
		v.accept(kept)
		v.seen = 0 // what any cluster has is newer
	}
	s, err := v.read(ctx)
	if ctx.Err() != nil && err != nil {
		local, localErr := v.read(context.WithoutCancel(ctx), coterie.WithSerializable())
		switch {
		case localErr != nil:
			return localErr
		case known && (local.cluster != kept.cluster || local.revision < kept.revision):
			return v.refused()
		case !known && !slices.ContainsFunc(local.modified, func(rev int64) bool { return rev > 0 }):
			return err
		}
		s, err = local, nil
	}
	if err != nil {
		return err
	}
	v.accept(s)
	return v.refused()
}

// refused returns why there is no good value at all.
func (v *Value[T]) refused() error {
	if g := v.newest.Load(); !g.usable {
		return g.Err
	}
	return nil
}

// follow looks at what is stored whenever a key changes, until there is an error, which it returns.
func (v *Value[T]) follow(key string) error {
	for {
		s, err := v.read(v.ctx)
		if err != nil {
			return err
		}
		v.accept(s)
		for _, err := range v.n.Watch(v.ctx, key, coterie.WithRevision(s.revision+1)) {
			if errors.Is(err, coterie.ErrCompacted) {
				break // what there is now is all that counts
			}
			if err != nil {
				return err
			}
			if err := v.look(v.ctx); err != nil {
				return err
			}
		}
	}
}

// look looks at what this node has now.
func (v *Value[T]) look(ctx context.Context) error {
	s, err := v.read(ctx, coterie.WithSerializable())
	if err == nil {
		v.accept(s)
	}
	return err
}

// read reads all keys at one revision.
func (v *Value[T]) read(ctx context.Context, opts ...coterie.GetOption) (stored, error) {
	var gets []coterie.Op
	for _, key := range v.cfg.Keys {
		gets = append(gets, coterie.OpGet(key, opts...))
	}
	r, err := v.n.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return stored{}, err
	}
	s := stored{cluster: uint64(r.ClusterID), revision: r.Revision}
	for _, op := range r.Responses {
		if len(op.Get.KVs) == 0 {
			s.documents, s.modified = append(s.documents, nil), append(s.modified, 0)
			continue
		}
		kv := op.Get.KVs[0]
		s.documents, s.modified = append(s.documents, &kv.Value), append(s.modified, kv.ModRevision)
	}
	return s, nil
}

// validate returns the value that documents make, if it is good. One at which the decoder or Validate
// panics is bad: it must not end every program that follows it.
func (v *Value[T]) validate(documents []*string) (value T, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("panic: %v", cause)
		}
	}()
	value, err = v.codec.decode(documents)
	if err == nil && v.cfg.Validate != nil {
		err = v.cfg.Validate(value)
	}
	return value, err
}

// accept makes what is stored the value, if it is newer and good.
func (v *Value[T]) accept(s stored) {
	value, err := v.validate(s.documents)
	v.mu.Lock()
	defer v.mu.Unlock()
	last := v.newest.Load()
	if s.revision <= v.seen {
		return
	}
	v.seen = s.revision
	if last.found != nil && slices.Equal(last.found, s.modified) {
		return // nothing has changed
	}
	g := &generation[T]{
		Current: Current[T]{value, s.revision, nil}, good: s, found: s.modified, usable: true, over: make(chan struct{}),
	}
	if err != nil {
		g.Current, g.good, g.usable = last.Current, last.good, last.usable
		g.Err = &RejectedError{s.revision, err}
	}
	v.newest.Store(g)
	close(last.over)
}

// Load returns the last good value. It takes no lock and does not block.
func (v *Value[T]) Load() T { return v.newest.Load().Value }

// Current is Load with the value's revision, and with why what is stored now is not it, if it is
// bad.
func (v *Value[T]) Current() Current[T] { return v.newest.Load().Current }

// Err returns, as a *RejectedError, why what is stored now is not used, and nil if it is. It does
// not tell of a lost quorum: see coterie's Status.
func (v *Value[T]) Err() error { return v.newest.Load().Err }

// Follow yields the value now, and again whenever a good or a bad one comes in: Err tells a bad
// one, beside the good value that stays. A slow loop misses what was between. It ends only with
// ctx, Close or the node, with a pair whose error says which.
func (v *Value[T]) Follow(ctx context.Context) iter.Seq2[Current[T], error] {
	return func(yield func(Current[T], error) bool) {
		err := v.generations(ctx, func(g *generation[T]) bool { return yield(g.Current, nil) })
		if err != nil {
			yield(Current[T]{}, err)
		}
	}
}

// generations returns nil when yield returned false.
func (v *Value[T]) generations(ctx context.Context, yield func(*generation[T]) bool) error {
	for {
		g := v.newest.Load()
		if !yield(g) {
			return nil
		}
		select {
		case <-g.over:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-v.ctx.Done():
			return context.Cause(v.ctx)
		}
	}
}

// Close ends the value's goroutines, and returns when they have ended. What it has stays, and
// Update and the others go on to work. It is idempotent.
func (v *Value[T]) Close() {
	v.end(coterie.ErrClosed)
	v.ending.Wait()
}
