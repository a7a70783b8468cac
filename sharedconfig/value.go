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

// A Value is a copy of a shared value, and is kept current. Its methods are safe for concurrent use.
type Value[T any] struct {
	// A goroutine follows each key, and one writes the file; only that one stores saving. mu guards seen, and is held to
	// store newest. The other fields do not change after Open.

	n      *coterie.Node
	cfg    Config[T]
	codec  codec[T]
	ctx    context.Context // ends with Close, or when a goroutine that follows a key has ended
	end    context.CancelCauseFunc
	ending sync.WaitGroup // the goroutines
	newest atomic.Pointer[generation[T]]
	saving atomic.Pointer[error] // the result of the last write of the file

	mu   sync.Mutex
	seen int64 // the revision of the newest state of the store that accept has handled
}

// A Current is the state of a [Value] at one moment.
type Current[T any] struct {
	// Value is the last good value. All callers share the data that it refers to, so that must not be changed.
	Value T `json:"value"`
	// Revision is the revision of the store that has the value. It is 0 for the default, before a read.
	Revision int64 `json:"revision"`
	// Err is a *RejectedError if the stored value is bad. If it is nil, the stored value is Value.
	Err error `json:"err,omitempty"`
}

// A generation is a Current with its origin and a signal that a newer one exists.
type generation[T any] struct {
	Current[T]
	good   stored        // the documents of Value
	found  []int64       // the ModRevisions of the newest documents, good or bad; nil before a read
	usable bool          // Value is good, or is a good default
	over   chan struct{} // closed when there is a newer one
}

// A stored is the state of the keys at one revision of the store.
type stored struct {
	cluster   uint64
	revision  int64
	documents []*string // nil for a missing key
	modified  []int64   // the ModRevision of each key; 0 for a missing key
}

// Open reads a value and returns it as a [Value], which is kept current until [Value.Close], or until the node
// closes. It does not end with ctx.
//
// Open blocks until it has read the value of the cluster. If ctx ends earlier, because there is no quorum, Open returns
// the last good value that is available: that of this node, or that of the file if the file is newer or from another
// cluster. The Value gets the value of the cluster when there is a quorum.
//
// Open writes nothing to the store. A Value takes a goroutine and a watch for each key, and a goroutine for the file.
//
// Errors: coterie.ErrInvalidOption and coterie.ErrEmptyKey; ctx's cause if no value is available; a *RejectedError if the
// stored value and the default are both bad; coterie.ErrClosed.
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

// first finds the value to start with.
func (v *Value[T]) first(ctx context.Context) error {
	kept, known := loadFile(v.cfg.File, v.cfg.Keys)
	if known {
		v.accept(kept)
		v.seen = 0 // the value of any cluster is newer
	}
	s, err := v.read(ctx)
	if ctx.Err() != nil && err != nil {
		local, localErr := v.read(context.WithoutCancel(ctx), coterie.WithSerializable())
		switch {
		case localErr != nil:
			return localErr
		case known && (local.cluster != kept.cluster || local.revision < kept.revision):
			return v.noGoodValue()
		case !known && !slices.ContainsFunc(local.modified, func(rev int64) bool { return rev > 0 }):
			return err
		}
		s, err = local, nil
	}
	if err != nil {
		return err
	}
	v.accept(s)
	return v.noGoodValue()
}

// noGoodValue returns an error if there is no good value, not even the default.
func (v *Value[T]) noGoodValue() error {
	if g := v.newest.Load(); !g.usable {
		return g.Err
	}
	return nil
}

// follow reads the keys whenever one of them changes, until an error ends it.
func (v *Value[T]) follow(key string) error {
	for {
		s, err := v.read(v.ctx)
		if err != nil {
			return err
		}
		v.accept(s)
		for _, err := range v.n.Watch(v.ctx, key, coterie.WithRevision(s.revision+1)) {
			if errors.Is(err, coterie.ErrCompacted) {
				break // read the current state instead
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

// look reads the current state of this node.
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

// validate returns the value of documents, with an error if it is bad. If the decoder or Validate panics, the value is
// bad: it must not end every program that follows it.
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

// accept publishes a state of the store if it is newer than the last one. A bad value does not replace Value.
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
		return // the keys have not changed
	}
	g := &generation[T]{
		Current: Current[T]{value, s.revision, nil}, good: s, found: s.modified, usable: true, over: make(chan struct{}),
	}
	if err != nil {
		g.Current, g.good, g.usable = last.Current, last.good, last.usable
		g.Err = &RejectedError{v.key(), s.revision, err}
	}
	v.newest.Store(g)
	close(last.over)
}

// Load returns the last good value. It takes no lock and does not block.
func (v *Value[T]) Load() T { return v.newest.Load().Value }

// Current returns the last good value with its revision, and with an error if the stored value is bad.
func (v *Value[T]) Current() Current[T] { return v.newest.Load().Current }

// Err returns a *RejectedError if the stored value is bad and therefore not used, and nil otherwise. It does not report
// a lost quorum; see [coterie.Node.Status].
func (v *Value[T]) Err() error { return v.newest.Load().Err }

// Follow yields the current state, and again after each change of the stored value. After a bad value, Current.Err is
// set and Current.Value stays. A slow loop skips the states between. Follow ends when ctx ends, or after
// [Value.Close], or when the node closes. Its last pair has the error.
func (v *Value[T]) Follow(ctx context.Context) iter.Seq2[Current[T], error] {
	return func(yield func(Current[T], error) bool) {
		err := v.generations(ctx, func(g *generation[T]) bool { return yield(g.Current, nil) })
		if err != nil {
			yield(Current[T]{}, err)
		}
	}
}

// generations calls yield with each generation. It returns nil when yield returns false, and otherwise why it ended.
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

// Close ends the goroutines of the Value, and returns when they have ended. The last value stays, and the other methods
// continue to work, apart from Follow. Close is idempotent.
func (v *Value[T]) Close() {
	v.end(fmt.Errorf("sharedconfig: the value is closed: %w", coterie.ErrClosed))
	v.ending.Wait()
}
