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

// Update changes the value to the result of fn. fn gets the value that is stored at that moment, and is called again
// if another update came first. It must copy the data that it changes, because its argument is shared.
// With several keys Update changes the last one, in the fields that differ.
//
// Update returns the revision of the write, and this Value then has the new value. If fn changed nothing, Update
// writes nothing and returns the revision of the last write. It blocks until a majority has the write, and
// without a quorum until ctx ends.
//
// An Update costs a linearizable read and one write. The write has the document, the previous version, and the
// deletion of the versions beyond Config.History. After a Put of the key there is one more write, of the
// value that the Put replaced. The document and the previous version must fit into one write, so documents larger
// than half of [coterie.Config].MaxRequestBytes can have no versions.
//
// Errors: fn's; a *RejectedError if the result of fn or the stored value is bad; coterie.ErrTooLarge if the
// document and the previous one are too large together, and then nothing changes; those of a write. After
// coterie.ErrMaybeApplied look at Current, or call Update again.
func (v *Value[T]) Update(ctx context.Context, fn func(T) (T, error)) (revision int64, err error) {
	return v.commit(ctx, func(s stored) (string, error) {
		is, err := v.validate(s.documents)
		if err != nil {
			return "", &RejectedError{v.key(), s.revision, err}
		}
		want, err := fn(is)
		if err != nil {
			return "", err
		}
		return v.codec.encode(s.documents, is, want)
	})
}

// A Version is a document that was stored under the last key.
type Version[T any] struct {
	Revision int64  `json:"revision"` // the revision that stored it; the argument of Rollback
	Document string `json:"document"`
	// Value is the value of this document with the other layers as they are now. Err is a *RejectedError if that
	// value is bad.
	Value T     `json:"value"`
	Err   error `json:"err,omitempty"`
}

// History returns the versions that are kept, the newest first: the current one, if there is one, and those that an
// Update or a Rollback has replaced. The next Update adds the document that a Put has replaced, unless
// there was more than one Put or the history of the store no longer has the document. History is a
// linearizable read, which blocks without a quorum until ctx ends.
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
			err = &RejectedError{key, revision, err}
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

// Rollback stores the document of a version again; revision is that of a [Version]. With revision 0 it stores the
// document that the current one has replaced. That includes a document replaced by a bad Put, as long as the
// history of the store has it; otherwise it is the newest kept version. The document becomes the newest
// version. It is checked like any other, and with layers it may be bad by now. Rollback returns the revision
// of its write. It blocks and costs as Update does.
//
// Errors: ErrNoVersion; a *RejectedError; those of a write.
func (v *Value[T]) Rollback(ctx context.Context, revision int64) (written int64, err error) {
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
			return "", fmt.Errorf("%w: revision %d of %s", ErrNoVersion, revision, v.key())
		}
		return r.KVs[0].Value, nil
	})
}

// replaced returns the document that the current one has replaced. If a Put has replaced it, it is not a version
// yet. replaced returns nil if there was no such document, or if the history of the store no longer has it.
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

// key returns the key that is written.
func (v *Value[T]) key() string { return v.cfg.Keys[len(v.cfg.Keys)-1] }

// never is a revision that no store reaches. The keys of versions are below it. Other keys may begin with the same
// key and "@", and are not versions.
const never = 1_000_000_000_000_000

// versionKey returns the key of a version. The keys are in the order of the revisions.
func (v *Value[T]) versionKey(revision int64) string {
	return fmt.Sprintf("%s@%019d", v.key(), revision)
}

// commit stores the document that change returns for the stored ones, if the value is good and no layer has changed
// meanwhile. Otherwise it tries again.
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
			return 0, &RejectedError{Key: v.key(), Err: err}
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
			// This node has applied the write, so look does not wait. If the node has closed meanwhile, the
			// write is still stored.
			_ = v.look(context.WithoutCancel(ctx))
			return r.Revision, nil
		}
	}
}

// keep returns the operations that make a version of the current document and delete the versions beyond
// Config.History. If the document that the current one has replaced is not a version yet, keep makes it one at
// once, in a write of its own, because all of them together might be too large.
func (v *Value[T]) keep(ctx context.Context, s stored, present string) ([]coterie.Op, error) {
	kept, err := v.n.Get(ctx, v.versionKey(0), coterie.WithRange(v.versionKey(never)), coterie.WithKeysOnly(), coterie.WithSerializable())
	if err != nil {
		return nil, err
	}
	now := v.versionKey(s.modified[len(s.modified)-1])
	versions := []string{now}
	for _, kv := range kept.KVs {
		// Another update has made the versions after now since the read of the current document. The transaction
		// will fail its conditions. It must not delete now, which it also writes.
		if kv.Key < now {
			versions = append(versions, kv.Key)
		}
	}
	before, err := v.replaced(ctx, s)
	if err != nil {
		return nil, err
	}
	var late string // the version to make at once
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
