// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc/metadata"

	"github.com/coterie-kv/coterie/bench/harness"
)

// An etcdStore is a client of etcd, with all interfaces of package harness. The client calls a member in this process, or
// an endpoint.
type etcdStore struct{ client *clientv3.Client }

func (s etcdStore) Put(ctx context.Context, key, value string) error {
	_, err := s.client.Put(ctx, key, value)
	return err
}

func (s etcdStore) Get(ctx context.Context, key, want string, local bool) error {
	var r *clientv3.GetResponse
	var err error
	if local {
		r, err = s.client.Get(ctx, key, clientv3.WithSerializable())
	} else {
		r, err = s.client.Get(ctx, key)
	}
	if err == nil && (r.Count != 1 || len(r.Kvs) != 1 || string(r.Kvs[0].Value) != want) {
		err = fmt.Errorf("a get of %q returned %d key-values that are not as expected", key, len(r.Kvs))
	}
	return err
}

// etcdScan returns the options of a read of a range.
func etcdScan(end string, local bool) []clientv3.OpOption {
	if local {
		return []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithSerializable()}
	}
	return []clientv3.OpOption{clientv3.WithRange(end)}
}

func (s etcdStore) Range(ctx context.Context, key, end string, n, bytes int, local bool) error {
	r, err := s.client.Get(ctx, key, etcdScan(end, local)...)
	if err != nil {
		return err
	}
	size := 0
	for _, kv := range r.Kvs {
		size += len(kv.Value)
	}
	return checkRange(key, len(r.Kvs), n, size, bytes)
}

func (s etcdStore) Stream(ctx context.Context, key, end string, n, bytes int, local bool) error {
	parts, err := s.client.GetStream(ctx, key, etcdScan(end, local)...)
	if err != nil {
		return err
	}
	count, size := 0, 0
	for part := range parts {
		if err := part.Err(); err != nil {
			return err
		}
		if part.RangeResponse == nil {
			continue
		}
		for _, kv := range part.RangeResponse.Kvs {
			count++
			size += len(kv.Value)
		}
	}
	return checkRange(key, count, n, size, bytes)
}

func (s etcdStore) Count(ctx context.Context, key, end string, n int, local bool) error {
	r, err := s.client.Get(ctx, key, append(etcdScan(end, local), clientv3.WithCountOnly())...)
	if err != nil {
		return err
	}
	return checkRange(key, int(r.Count), n, 0, 0)
}

func (s etcdStore) DeleteRange(ctx context.Context, key, end string, n int) error {
	r, err := s.client.Delete(ctx, key, clientv3.WithRange(end))
	if err != nil {
		return err
	}
	return checkRange(key, int(r.Deleted), n, 0, 0)
}

func (s etcdStore) Swap(ctx context.Context, key, value string, revision int64) (int64, error) {
	r, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
		Then(clientv3.OpPut(key, value)).Commit()
	if err != nil {
		return 0, err
	}
	return checkSwap(key, r.Succeeded, r.Header.Revision)
}

func (s etcdStore) PutAll(ctx context.Context, keys, values []string) (int64, error) {
	ops := make([]clientv3.Op, len(keys))
	for i, key := range keys {
		ops[i] = clientv3.OpPut(key, values[i])
	}
	r, err := s.client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return 0, err
	}
	return r.Header.Revision, nil
}

func (s etcdStore) Compact(ctx context.Context, revision int64) error {
	_, err := s.client.Compact(ctx, revision)
	if errors.Is(err, rpctypes.ErrCompacted) {
		return nil
	}
	return err
}

func (s etcdStore) Watch(ctx context.Context, key string, created func(), event func(number int64)) error {
	// The watches of a context share a stream, apart from earlier ones: an earlier one may hang.
	ctx = metadata.AppendToOutgoingContext(ctx, "context", fmt.Sprintf("%p", ctx))
	events := s.client.Watch(ctx, key, clientv3.WithCreatedNotify())
	for {
		var r clientv3.WatchResponse
		ok := true
		select {
		case r, ok = <-events:
		case <-ctx.Done():
			// The channel may never be closed: when many watches of etcd's in-process client end at once, the client and
			// the server can wait for each other. Then no other watch can use the stream.
			return nil
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case !ok:
			return errors.New("a watch has ended")
		case r.Err() != nil:
			return r.Err()
		case r.Created:
			created()
		}
		for _, e := range r.Events {
			event(harness.Number(e.Kv.Value))
		}
	}
}

func (s etcdStore) Grant(ctx context.Context, ttl time.Duration) (int64, error) {
	r, err := s.client.Grant(ctx, int64(ttl.Seconds()))
	if err != nil {
		return 0, err
	}
	return int64(r.ID), nil
}

func (s etcdStore) KeepAlive(ctx context.Context, id int64) error {
	r, err := s.client.KeepAliveOnce(ctx, clientv3.LeaseID(id))
	if err == nil && r.TTL <= 0 {
		err = fmt.Errorf("lease %x has ended", id)
	}
	return err
}

func (s etcdStore) Revoke(ctx context.Context, id int64) error {
	_, err := s.client.Revoke(ctx, clientv3.LeaseID(id))
	return err
}

func (s etcdStore) NewLock(_ context.Context, name string, ttl time.Duration) (harness.Lock, error) {
	session, err := concurrency.NewSession(s.client, concurrency.WithTTL(int(ttl.Seconds())))
	if err != nil {
		return nil, err
	}
	return etcdLock{concurrency.NewMutex(session, name), session}, nil
}

// An etcdLock is a mutex with a session of its own.
type etcdLock struct {
	*concurrency.Mutex
	session *concurrency.Session
}

func (l etcdLock) Close() error {
	l.session.Orphan() // its keep-alives end; a revocation can time out on a busy machine
	return nil
}
