// SPDX-License-Identifier: Apache-2.0

package sharedconfig

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/coterie-kv/coterie"
)

// Update changes the value to what fn makes of it, which must be a copy where it refers to
// anything: fn is given the value that is stored at that moment, and called again if another update
// came first. Of several keys the last is changed, in the fields that differ. It returns the
// revision of the write, which this Value has then; of the last one if fn changed nothing of what
// is stored, for which nothing is written. It blocks until a majority has the write, without a
// quorum until ctx ends. It costs a linearizable read and a write of the document, of the version
// before, and the deletion of what is older than Config.History; after a Put, also a write of what that
// replaced. The document and the version before are one write, so documents of half of coterie's
// Config.MaxRequestBytes are too large to have versions.
//
// Errors: fn's; a *RejectedError when what fn returned, or what is stored, is bad; coterie.ErrTooLarge
// when the document and the one before are too large together: the value is as before; those of a
// write. After ErrMaybeApplied look at Current, or call it again.
func (v *Value[T]) Update(ctx context.Context, fn func(T) (T, error)) (int64, error) {
	return v.commit(ctx, func(s stored) (string, error) {
		is, err := v.validate(s.documents)
		if err != nil {
			return "", &RejectedError{s.revision, err}
		}
		shall, err := fn(is)
		if err != nil {
			return "", err
		}
		return v.codec.encode(s.documents, is, shall)
	})
}

// A Version is what was stored under the last key from a revision on.
type Version[T any] struct {
	Revision int64 // that stored it: what Rollback takes
	Document string
	// Value is what it makes of the other layers as they are now, and Err, a *RejectedError, why
	// that is bad.
	Value T
	Err   error
}

// History returns the versions that are kept, the newest first: the present one, if there is one,
// and those that an Update or a Rollback replaced. What a Put replaced is not among them until the
// next Update, which adds it if nothing came in between and the store's history still has it. It is
// a linearizable read, which blocks without a quorum until ctx ends.
func (v *Value[T]) History(ctx context.Context) ([]Version[T], error) {
	key := v.key()
	gets := []coterie.Op{coterie.OpGet(v.versionKey(0), coterie.WithRange(v.versionKey(never)),
		coterie.WithSort(coterie.SortByKey, coterie.SortDescend))}
	for _, key := range v.cfg.Keys {
		gets = append(gets, coterie.OpGet(key))
	}
	r, err := v.n.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return nil, err
	}
	documents := make([]*string, len(v.cfg.Keys))
	for i := range documents {
		if kvs := r.Responses[i+1].Get.KVs; len(kvs) > 0 {
			documents[i] = &kvs[0].Value
		}
	}
	last := len(documents) - 1
	var versions []Version[T]
	add := func(revision int64, document string) {
		documents[last] = &document
		value, err := v.validate(documents)
		if err != nil {
			err = &RejectedError{revision, err}
		}
		versions = append(versions, Version[T]{revision, document, value, err})
	}
	if kvs := r.Responses[last+1].Get.KVs; len(kvs) > 0 {
		add(kvs[0].ModRevision, kvs[0].Value)
	}
	for _, kv := range r.Responses[0].Get.KVs {
		if revision, err := strconv.ParseInt(kv.Key[len(key)+1:], 10, 64); err == nil {
			add(revision, kv.Value)
		}
	}
	return versions, nil
}

// Rollback stores again what was stored under the last key by a revision that History has. 0 is
// what was there before the present one, whatever that is: also a bad one, that was Put, as long as
// the store's history has what it replaced, and else the newest version besides. It becomes the
// newest version, and is checked as any other: with layers it may be bad now. It blocks and costs
// as Update does.
//
// Errors: ErrNoVersion; a *RejectedError; those of a write.
func (v *Value[T]) Rollback(ctx context.Context, revision int64) (int64, error) {
	return v.commit(ctx, func(s stored) (string, error) {
		if last := len(s.modified) - 1; revision != 0 && s.modified[last] == revision {
			return *s.documents[last], nil
		}
		if revision == 0 {
			switch document, err := v.replaced(ctx, s); {
			case err != nil:
				return "", err
			case document != nil:
				return document.Value, nil
			}
		}
		get := []coterie.GetOption{coterie.WithRange(v.versionKey(never)), coterie.WithSort(coterie.SortByKey, coterie.SortDescend), coterie.WithLimit(1)}
		if revision != 0 {
			get = nil
		}
		r, err := v.n.Get(ctx, v.versionKey(revision), get...)
		if err != nil {
			return "", err
		}
		if len(r.KVs) == 0 {
			return "", fmt.Errorf("%w: %d of %s", ErrNoVersion, revision, v.key())
		}
		return r.KVs[0].Value, nil
	})
}

// replaced returns what the present document took the place of, which is no version if that was by
// a Put; nil if there was none, or the store's history does not have it any more.
func (v *Value[T]) replaced(ctx context.Context, s stored) (*coterie.KeyValue, error) {
	modified := s.modified[len(s.modified)-1]
	if modified <= 1 {
		return nil, nil
	}
	r, err := v.n.Get(ctx, v.key(), coterie.WithRevision(modified-1), coterie.WithSerializable())
	switch {
	case errors.Is(err, coterie.ErrCompacted):
		return nil, nil
	case err != nil || len(r.KVs) == 0:
		return nil, err
	}
	return &r.KVs[0], nil
}

// key is the one that is written.
func (v *Value[T]) key() string { return v.cfg.Keys[len(v.cfg.Keys)-1] }

// never is a revision that no store comes to. The versions are the keys up to there: others may
// begin with the same key and "@", and must not be taken for one.
const never = 1_000_000_000_000_000

// versionKey is where a version is kept that a revision stored. The keys are in the order of the
// revisions.
func (v *Value[T]) versionKey(revision int64) string {
	return fmt.Sprintf("%s@%019d", v.key(), revision)
}

// commit stores what change makes of what is stored, if it is good, on the condition that no layer
// has changed meanwhile.
func (v *Value[T]) commit(ctx context.Context, change func(stored) (string, error)) (int64, error) {
	for {
		s, err := v.read(ctx)
		if err != nil {
			return 0, err
		}
		document, err := change(s)
		if err != nil {
			return 0, err
		}
		last := len(s.documents) - 1
		old, modified := s.documents[last], s.modified[last]
		if old != nil && *old == document {
			return modified, nil
		}
		s.documents[last] = &document
		if _, err := v.validate(s.documents); err != nil {
			return 0, &RejectedError{Err: err}
		}
		ops := []coterie.Op{coterie.OpPut(v.key(), document)}
		if old != nil && v.cfg.History > 0 {
			keep, err := v.keep(ctx, s, *old)
			if err != nil {
				return 0, err
			}
			ops = append(ops, keep...)
		}
		var unchanged []coterie.Comparison
		for i, key := range v.cfg.Keys {
			unchanged = append(unchanged, coterie.Compare(coterie.ModRevision(key), "=", s.modified[i]))
		}
		r, err := v.n.Txn(ctx).If(unchanged...).Then(ops...).Commit()
		if err != nil {
			return 0, err
		}
		if r.Succeeded {
			// This node has applied it, so nothing is waited for; one that closes has it all the
			// same.
			_ = v.look(context.WithoutCancel(ctx))
			return r.Revision, nil
		}
	}
}

// keep returns the operations that make a version of the present document, and delete the oldest of
// those that are too many then. What the present one took the place of, if it is none yet, it makes a
// version at once, in a write of its own: all of them in one might be too large.
func (v *Value[T]) keep(ctx context.Context, s stored, present string) ([]coterie.Op, error) {
	kept, err := v.n.Get(ctx, v.versionKey(0), coterie.WithRange(v.versionKey(never)), coterie.WithKeysOnly(), coterie.WithSerializable())
	if err != nil {
		return nil, err
	}
	now := v.versionKey(s.modified[len(s.modified)-1])
	versions := []string{now}
	for _, kv := range kept.KVs {
		versions = append(versions, kv.Key)
	}
	before, err := v.replaced(ctx, s)
	if err != nil {
		return nil, err
	}
	var late string // the version that is to be made at once
	if before != nil && !slices.Contains(versions, v.versionKey(before.ModRevision)) {
		late = v.versionKey(before.ModRevision)
		versions = append(versions, late)
	}
	slices.Sort(versions)
	var ops []coterie.Op
	if tooMany := len(versions) - v.cfg.History; tooMany > 0 {
		versions = versions[tooMany:]
		ops = append(ops, coterie.OpDelete(v.versionKey(0), coterie.WithRange(versions[0])))
	}
	if late != "" && late >= versions[0] {
		if _, err := v.n.Put(ctx, late, before.Value); err != nil {
			return nil, err
		}
	}
	return append(ops, coterie.OpPut(now, present)), nil
}
