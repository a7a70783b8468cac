// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/bench/harness"
)

// A coterieStore is a node of coterie, with all interfaces of package harness.
type coterieStore struct{ node *coterie.Node }

func (s coterieStore) Put(ctx context.Context, key, value string) error {
	_, err := s.node.Put(ctx, key, value)
	return err
}

func (s coterieStore) Get(ctx context.Context, key, want string, local bool) error {
	var r *coterie.GetResponse
	var err error
	if local {
		r, err = s.node.Get(ctx, key, coterie.WithSerializable())
	} else {
		r, err = s.node.Get(ctx, key)
	}
	if err == nil && (r.Count != 1 || len(r.KVs) != 1 || r.KVs[0].Value != want) {
		err = fmt.Errorf("a get of %q returned %d key-values that are not as expected", key, len(r.KVs))
	}
	return err
}

// scan returns the options of a read of a range.
func scan(end string, local bool) []coterie.ScanOption {
	if local {
		return []coterie.ScanOption{coterie.WithRange(end), coterie.WithSerializable()}
	}
	return []coterie.ScanOption{coterie.WithRange(end)}
}

func (s coterieStore) Range(ctx context.Context, key, end string, n, bytes int, local bool) error {
	var opts []coterie.GetOption
	for _, o := range scan(end, local) {
		opts = append(opts, o)
	}
	r, err := s.node.Get(ctx, key, opts...)
	if err != nil {
		return err
	}
	size := 0
	for i := range r.KVs {
		size += len(r.KVs[i].Value)
	}
	return checkRange(key, len(r.KVs), n, size, bytes)
}

func (s coterieStore) Stream(ctx context.Context, key, end string, n, bytes int, local bool) error {
	return checkStream(s.node.Range(ctx, key, scan(end, local)...), key, n, bytes)
}

func checkStream(kvs iter.Seq2[coterie.KeyValue, error], key string, n, bytes int) error {
	count, size := 0, 0
	for kv, err := range kvs {
		if err != nil {
			return err
		}
		count++
		size += len(kv.Value)
	}
	return checkRange(key, count, n, size, bytes)
}

// checkRange returns an error unless a range has the expected number of keys and bytes of values.
func checkRange(key string, count, n, size, bytes int) error {
	if count != n || size != bytes {
		return fmt.Errorf("a range from %q has %d keys with %d bytes instead of %d with %d", key, count, size, n, bytes)
	}
	return nil
}

func (s coterieStore) Count(ctx context.Context, key, end string, n int, local bool) error {
	opts := []coterie.GetOption{coterie.WithRange(end), coterie.WithCountOnly()}
	if local {
		opts = append(opts, coterie.WithSerializable())
	}
	r, err := s.node.Get(ctx, key, opts...)
	if err != nil {
		return err
	}
	return checkRange(key, int(r.Count), n, 0, 0)
}

func (s coterieStore) DeleteRange(ctx context.Context, key, end string, n int) error {
	r, err := s.node.Delete(ctx, key, coterie.WithRange(end))
	if err != nil {
		return err
	}
	return checkRange(key, int(r.Deleted), n, 0, 0)
}

func (s coterieStore) Swap(ctx context.Context, key, value string, revision int64) (int64, error) {
	r, err := s.node.Txn(ctx).If(coterie.Compare(coterie.ModRevision(key), coterie.Equal, revision)).
		Then(coterie.OpPut(key, value)).Commit()
	if err != nil {
		return 0, err
	}
	return checkSwap(key, r.Succeeded, r.Revision)
}

// checkSwap returns the revision of a transaction that succeeded.
func checkSwap(key string, succeeded bool, revision int64) (int64, error) {
	if !succeeded {
		return 0, fmt.Errorf("%q has another revision than the last transaction returned", key)
	}
	return revision, nil
}

func (s coterieStore) PutAll(ctx context.Context, keys, values []string) (int64, error) {
	ops := make([]coterie.Op, len(keys))
	for i, key := range keys {
		ops[i] = coterie.OpPut(key, values[i])
	}
	r, err := s.node.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return 0, err
	}
	return r.Revision, nil
}

func (s coterieStore) Compact(ctx context.Context, revision int64) error {
	_, err := s.node.Compact(ctx, revision)
	if errors.Is(err, coterie.ErrCompacted) {
		return nil // the node has compacted by itself
	}
	return err
}

func (s coterieStore) Watch(ctx context.Context, key string, created func(), event func(number int64)) error {
	for r, err := range s.node.Watch(ctx, key, coterie.WithCreatedNotify()) {
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case r.Created:
			created()
		}
		for i := range r.Events {
			event(harness.Number(r.Events[i].KV.Value))
		}
	}
	return nil
}

func (s coterieStore) Grant(ctx context.Context, ttl time.Duration) (int64, error) {
	r, err := s.node.Grant(ctx, ttl)
	if err != nil {
		return 0, err
	}
	return int64(r.ID), nil
}

func (s coterieStore) KeepAlive(ctx context.Context, id int64) error {
	_, err := s.node.KeepAliveOnce(ctx, coterie.LeaseID(id))
	return err
}

func (s coterieStore) Revoke(ctx context.Context, id int64) error {
	_, err := s.node.Revoke(ctx, coterie.LeaseID(id))
	return err
}

func (s coterieStore) NewLock(ctx context.Context, name string, ttl time.Duration) (harness.Lock, error) {
	session, err := coterie.NewSession(ctx, s.node, coterie.WithTTL(ttl))
	if err != nil {
		return nil, err
	}
	return coterieLock{coterie.NewMutex(session, name), session}, nil
}

// A coterieLock is a mutex with a session of its own.
type coterieLock struct {
	*coterie.Mutex
	session *coterie.Session
}

func (l coterieLock) Close() error {
	l.session.Orphan()
	return nil
}
