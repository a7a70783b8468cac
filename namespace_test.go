// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// A view is a node or a namespace.
type view interface {
	coterie.KV
	coterie.Watcher
	coterie.Leaser
}

// A scope is a view. Its revisions are base ahead of those of the view that it is compared with.
type scope struct {
	view
	base int64
}

func (s scope) header(h coterie.Header) coterie.Header {
	return coterie.Header{Revision: h.Revision - s.base}
}

func (s scope) keyValue(kv *coterie.KeyValue) *coterie.KeyValue {
	if kv == nil {
		return nil
	}
	out := *kv
	out.ModRevision -= s.base
	if out.CreateRevision > 0 { // not of the event of a deletion
		out.CreateRevision -= s.base
	}
	return &out
}

func (s scope) keyValues(kvs []coterie.KeyValue) (out []coterie.KeyValue) {
	for _, kv := range kvs {
		out = append(out, *s.keyValue(&kv))
	}
	return out
}

// response returns a response with revisions as the other view has them.
func (s scope) response(r coterie.OpResponse) (out coterie.OpResponse) {
	switch {
	case r.Put != nil:
		out.Put = &coterie.PutResponse{Header: s.header(r.Put.Header), PrevKV: s.keyValue(r.Put.PrevKV)}
	case r.Get != nil:
		out.Get = &coterie.GetResponse{Header: s.header(r.Get.Header), KVs: s.keyValues(r.Get.KVs), Count: r.Get.Count, More: r.Get.More}
	case r.Delete != nil:
		out.Delete = &coterie.DeleteResponse{
			Header: s.header(r.Delete.Header), Deleted: r.Delete.Deleted, PrevKVs: s.keyValues(r.Delete.PrevKVs),
		}
	case r.Txn != nil:
		out.Txn = &coterie.TxnResponse{Header: s.header(r.Txn.Header), Succeeded: r.Txn.Succeeded}
		for _, r := range r.Txn.Responses {
			out.Txn.Responses = append(out.Txn.Responses, s.response(r))
		}
	}
	return out
}

// A call is one call of a view, with its result.
type call func(ctx context.Context, s scope) (coterie.OpResponse, error)

// A caller draws calls with every option, so that each can be made to two views.
type caller struct{ *rand.Rand }

func (c caller) key() string {
	return []string{"a", "a\x00", "ab", "b", "\x00", "\xff", "\xff\xff"}[c.IntN(7)]
}

func (c caller) maybe() bool { return c.IntN(3) == 0 }

func (c caller) keys() (string, []coterie.RangeOption) {
	switch key := c.key(); c.IntN(8) {
	case 0:
		return "", []coterie.RangeOption{coterie.WithPrefix()}
	case 1:
		return "", []coterie.RangeOption{coterie.WithFromKey()}
	case 2:
		return key, []coterie.RangeOption{coterie.WithPrefix()}
	case 3:
		return key, []coterie.RangeOption{coterie.WithFromKey()}
	case 4:
		return key, []coterie.RangeOption{coterie.WithRange(c.key())}
	case 5:
		return "", nil
	default:
		return key, nil
	}
}

func (c caller) put() (string, string, []coterie.PutOption) {
	key, val, opts := c.key(), fmt.Sprint(c.IntN(100)), []coterie.PutOption(nil)
	if c.maybe() {
		opts = append(opts, coterie.WithPrevKV())
	}
	switch c.IntN(8) {
	case 0:
		val, opts = "", append(opts, coterie.WithIgnoreValue())
	case 1:
		opts = append(opts, coterie.WithIgnoreLease())
	case 2:
		opts = append(opts, coterie.WithLease(7))
	case 3:
		opts = append(opts, coterie.WithLease(8)) // which does not exist
	case 4:
		key = ""
	}
	return key, val, opts
}

func (c caller) scan() (string, func(s scope) []coterie.ScanOption) {
	key, keys := c.keys()
	limit, revision, filter, how := c.Int64N(5), c.Int64N(30)-5, c.IntN(12), c.IntN(6)
	return key, func(s scope) (opts []coterie.ScanOption) {
		for _, opt := range keys {
			opts = append(opts, opt)
		}
		if limit < 3 {
			opts = append(opts, coterie.WithLimit(limit))
		}
		if revision > 0 {
			opts = append(opts, coterie.WithRevision(revision+s.base))
		}
		switch filter {
		case 0:
			opts = append(opts, coterie.WithMinModRevision(9+s.base))
		case 1:
			opts = append(opts, coterie.WithMaxModRevision(9+s.base))
		case 2:
			opts = append(opts, coterie.WithMinCreateRevision(9+s.base))
		case 3:
			opts = append(opts, coterie.WithMaxCreateRevision(9+s.base))
		}
		switch how {
		case 0:
			opts = append(opts, coterie.WithSerializable())
		case 1:
			opts = append(opts, coterie.WithWaitRevision(1+s.base))
		}
		return opts
	}
}

func (c caller) get() (string, func(s scope) []coterie.GetOption) {
	key, scan := c.scan()
	by, order, what := coterie.SortTarget(c.IntN(5)), coterie.SortOrder(c.IntN(3)), c.IntN(8)
	return key, func(s scope) (opts []coterie.GetOption) {
		for _, opt := range scan(s) {
			opts = append(opts, opt)
		}
		switch what {
		case 0:
			opts = append(opts, coterie.WithKeysOnly())
		case 1:
			opts = append(opts, coterie.WithCountOnly())
		case 2, 3:
			opts = append(opts, coterie.WithSort(by, order))
		}
		return opts
	}
}

func (c caller) del() (key string, opts []coterie.DeleteOption) {
	key, keys := c.keys()
	for _, opt := range keys {
		opts = append(opts, opt)
	}
	if c.maybe() {
		opts = append(opts, coterie.WithPrevKV())
	}
	return key, opts
}

func (c caller) op(depth int) func(s scope) coterie.Op {
	switch kind := c.IntN(5); {
	case kind == 0 && depth > 0:
		return c.txn(depth - 1)
	case kind <= 2:
		key, val, opts := c.put()
		return func(scope) coterie.Op { return coterie.OpPut(key, val, opts...) }
	case kind == 3:
		key, opts := c.get()
		return func(s scope) coterie.Op { return coterie.OpGet(key, opts(s)...) }
	default:
		key, opts := c.del()
		return func(scope) coterie.Op { return coterie.OpDelete(key, opts...) }
	}
}

func (c caller) ops(depth int) func(s scope) []coterie.Op {
	var draws []func(s scope) coterie.Op
	for range c.IntN(3) {
		draws = append(draws, c.op(depth))
	}
	return func(s scope) (ops []coterie.Op) {
		for _, draw := range draws {
			ops = append(ops, draw(s))
		}
		return ops
	}
}

func (c caller) comparison() func(s scope) coterie.Comparison {
	key, rev, target, over := c.key(), c.Int64N(20), c.IntN(5), c.IntN(4)
	op := []coterie.CompareOp{coterie.Equal, coterie.NotEqual, coterie.Less, coterie.Greater}[c.IntN(4)]
	if c.IntN(10) == 0 {
		key = ""
	}
	return func(s scope) (cmp coterie.Comparison) {
		switch target {
		case 0:
			cmp = coterie.Compare(coterie.Value(key), op, "50")
		case 1:
			cmp = coterie.Compare(coterie.Version(key), op, rev%3)
		case 2:
			cmp = coterie.Compare(coterie.CreateRevision(key), coterie.Greater, rev+s.base)
		case 3:
			cmp = coterie.Compare(coterie.ModRevision(key), coterie.Greater, rev+s.base)
		default:
			cmp = coterie.Compare(coterie.LeaseValue(key), op, 7)
		}
		switch over {
		case 0:
			return cmp.WithPrefix()
		case 1:
			return cmp.WithRange("b")
		}
		return cmp
	}
}

func (c caller) txn(depth int) func(s scope) coterie.Op {
	var cmps []func(s scope) coterie.Comparison
	for range c.IntN(3) {
		cmps = append(cmps, c.comparison())
	}
	then, els := c.ops(depth), c.ops(depth)
	return func(s scope) coterie.Op {
		var conditions []coterie.Comparison
		for _, cmp := range cmps {
			conditions = append(conditions, cmp(s))
		}
		return coterie.OpTxn(conditions, then(s), els(s))
	}
}

func (c caller) call() call {
	switch c.IntN(8) {
	case 0, 1:
		key, val, opts := c.put()
		return func(ctx context.Context, s scope) (coterie.OpResponse, error) {
			r, err := s.Put(ctx, key, val, opts...)
			return coterie.OpResponse{Put: r}, err
		}
	case 2:
		key, opts := c.get()
		return func(ctx context.Context, s scope) (coterie.OpResponse, error) {
			r, err := s.Get(ctx, key, opts(s)...)
			return coterie.OpResponse{Get: r}, err
		}
	case 3:
		key, opts := c.scan()
		return func(ctx context.Context, s scope) (r coterie.OpResponse, err error) {
			r.Get = &coterie.GetResponse{Header: coterie.Header{Revision: s.base}}
			for kv, failed := range s.Range(ctx, key, opts(s)...) {
				if err = failed; err == nil {
					r.Get.KVs = append(r.Get.KVs, kv)
				}
			}
			return r, err
		}
	case 4:
		key, opts := c.del()
		return func(ctx context.Context, s scope) (coterie.OpResponse, error) {
			r, err := s.Delete(ctx, key, opts...)
			return coterie.OpResponse{Delete: r}, err
		}
	case 5:
		cmp, then, els := c.comparison(), c.ops(2), c.ops(2)
		return func(ctx context.Context, s scope) (coterie.OpResponse, error) {
			r, err := s.Txn(ctx).If(cmp(s)).Then(then(s)...).Else(els(s)...).Commit()
			return coterie.OpResponse{Txn: r}, err
		}
	default:
		op := c.op(2)
		return func(ctx context.Context, s scope) (coterie.OpResponse, error) { return s.Do(ctx, op(s)) }
	}
}

// A namespace does to its keys as a node of its own would, and nothing to other keys.
func TestNamespaceIsLikeANodeOfItsOwn(t *testing.T) {
	for _, prefix := range []string{"p/", "p\xff", "\xff", "\xff\xff", "\x00", ""} {
		t.Run(fmt.Sprintf("%q", prefix), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seed := rand.Uint64()
				t.Log("seed", seed)
				ctx := t.Context()
				c := caller{rand.New(rand.NewPCG(seed, 1))}
				shared := open(t)
				outside := map[string]bool{}
				if prefix != "" {
					for _, key := range []string{"\x00\x00", "o", "p", "p.", "p0", "q", "\xfe", "\xfe\xff", prefix} {
						if len(key) <= len(prefix) || key[:len(prefix)] != prefix {
							put(t, shared, key, "outside")
							outside[key] = true
						}
					}
				}
				own := open(t)
				all := []scope{{own, 0}, {coterie.NewNamespace(shared, prefix), int64(len(outside))}}
				var watches [2][]<-chan coterie.WatchResult
				for i, s := range all {
					_, err := s.Grant(ctx, time.Hour, coterie.WithGrantID(7))
					require.NoError(t, err)
					for _, opts := range [][]coterie.WatchOption{
						{coterie.WithPrefix(), coterie.WithPrevKV()}, {coterie.WithFromKey()},
						{coterie.WithRange("b"), coterie.WithRevision(s.base + 3)}, {coterie.WithFilterPut()},
					} {
						key := "a"
						if len(watches[i]) == 0 {
							key = ""
						}
						watches[i] = append(watches[i], s.WatchChan(ctx, key, opts...))
					}
				}
				for i := range 1000 {
					call := c.call()
					want, wantErr := call(ctx, all[0])
					got, err := call(ctx, all[1])
					if wantErr != nil {
						require.Error(t, err)
						for _, sentinel := range []error{
							coterie.ErrEmptyKey, coterie.ErrInvalidOption, coterie.ErrKeyNotFound, coterie.ErrLeaseNotFound,
							coterie.ErrDuplicateKey, coterie.ErrFutureRevision,
						} {
							require.Equal(t, errors.Is(wantErr, sentinel), errors.Is(err, sentinel), "call %d: %v, %v", i, wantErr, err)
						}
						continue
					}
					require.NoError(t, err, "call %d", i)
					require.Equal(t, all[0].response(want), all[1].response(got), "call %d", i)
				}
				for i := range watches[0] {
					last := own.Status().Revision
					require.Equal(t, drain(watches[0][i], all[0]), drain(watches[1][i], all[1]), "watch %d up to %d", i, last)
				}
				var left [2]*coterie.TimeToLiveResponse
				for i, s := range all {
					var err error
					left[i], err = s.TimeToLive(ctx, 7)
					require.NoError(t, err)
				}
				require.Equal(t, left[0].Keys, left[1].Keys)
				for key := range outside {
					kvs := get(t, shared, key).KVs
					require.Len(t, kvs, 1, "%q", key)
					require.EqualValues(t, 1, kvs[0].Version, "%q", key)
				}
			})
		})
	}
}

// drain returns the events of a watch, with revisions as the other view has them.
func drain(watch <-chan coterie.WatchResult, s scope) (events []coterie.Event) {
	for {
		synctest.Wait()
		select {
		case r := <-watch:
			for _, e := range r.Events {
				e.KV, e.PrevKV = *s.keyValue(&e.KV), s.keyValue(e.PrevKV)
				events = append(events, e)
			}
		default:
			return events
		}
	}
}

func TestNamespaceReturnsOnlyItsKeysOfALease(t *testing.T) {
	n := open(t)
	ns := coterie.NewNamespace(n, "p/")
	l, err := ns.Grant(t.Context(), time.Hour)
	require.NoError(t, err)
	for _, key := range []string{"a", "p/", "p/x", "q"} {
		put(t, n, key, "", coterie.WithLease(l.ID))
	}
	left, err := ns.TimeToLive(t.Context(), l.ID)
	require.NoError(t, err)
	require.Equal(t, []string{"x"}, left.Keys)
	_, err = ns.KeepAliveOnce(t.Context(), l.ID)
	require.NoError(t, err)
	all, err := ns.Leases(t.Context())
	require.NoError(t, err)
	require.Equal(t, []coterie.LeaseID{l.ID}, all.Leases)
	_, err = ns.Revoke(t.Context(), l.ID)
	require.NoError(t, err)
	require.ErrorIs(t, ns.KeepAlive(t.Context(), l.ID), coterie.ErrLeaseNotFound)
	require.Empty(t, get(t, n, "", coterie.WithPrefix()).KVs, "with the keys outside")
}

func TestNamespaceRangeEndsWithItsLoop(t *testing.T) {
	n := open(t)
	ns := coterie.NewNamespace(n, "p/")
	for _, key := range []string{"p/a", "p/b", "p/c", "p0"} {
		put(t, n, key, "v")
	}
	next, stop := iter.Pull2(ns.Range(t.Context(), "", coterie.WithPrefix()))
	defer stop()
	for _, want := range []string{"a", "b"} {
		kv, err, ok := next()
		require.True(t, ok)
		require.NoError(t, err)
		require.Equal(t, want, kv.Key)
	}
	require.NoError(t, errOf(ns.Compact(t.Context(), 3)))
	require.ErrorIs(t, errOf(ns.Get(t.Context(), "a", coterie.WithRevision(2))), coterie.ErrCompacted)
}
