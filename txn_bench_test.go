// SPDX-License-Identifier: Apache-2.0

//go:build unix

package coterie_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

// Each caller replaces the value of a key of its own, if the key has not changed since.
func BenchmarkClusterSwap(b *testing.B) {
	value := strings.Repeat("v", 256)
	n := benchCluster(b)
	callers := make([]swapper, 1000)
	var next atomic.Int64
	for i := range callers {
		callers[i].key = benchKey(int64(i))
	}
	calledBy(b, len(callers), func() func() error {
		caller := &callers[next.Add(1)-1]
		return func() error { return caller.swap(n, value) }
	})
}

// A swapper replaces the value of a key that nothing else writes.
type swapper struct {
	key string
	rev int64 // of its last change
}

func (s *swapper) swap(n *coterie.Node, value string) error {
	r, err := n.Txn(context.Background()).If(coterie.Compare(coterie.ModRevision(s.key), coterie.Equal, s.rev)).
		Then(coterie.OpPut(s.key, value)).Commit()
	switch {
	case err != nil:
		return err
	case !r.Succeeded:
		return fmt.Errorf("%s has another revision than %d", s.key, s.rev)
	}
	s.rev = r.Revision
	return nil
}

// One caller locks and unlocks a lock that is free.
func BenchmarkClusterLock(b *testing.B) {
	n := benchCluster(b)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := coterie.NewSession(ctx, n, coterie.WithTTL(time.Hour))
	require.NoError(b, err)
	m := coterie.NewMutex(s, "lock")
	calledBy(b, 1, func() func() error {
		return func() error {
			if err := m.Lock(ctx); err != nil {
				return err
			}
			return m.Unlock(ctx)
		}
	})
}

// Each caller locks and unlocks a lock of its own, all with one session.
func BenchmarkClusterLocks(b *testing.B) {
	n := benchCluster(b)
	s, err := coterie.NewSession(context.Background(), n, coterie.WithTTL(time.Hour))
	require.NoError(b, err)
	var next atomic.Int64
	calledBy(b, 1000, func() func() error {
		m := coterie.NewMutex(s, fmt.Sprintf("lock%d", next.Add(1)))
		return func() error {
			if err := m.Lock(context.Background()); err != nil {
				return err
			}
			return m.Unlock(context.Background())
		}
	})
}

// A hundred callers renew 10,000 leases in turn.
func BenchmarkClusterKeepAlive(b *testing.B) {
	n := benchCluster(b)
	ids := make([]coterie.LeaseID, 10_000)
	for i := range ids {
		ids[i] = coterie.LeaseID(1e9 * (i + 1))
	}
	var next atomic.Int64
	each := func() func() error {
		return func() error {
			id := ids[next.Add(1)%int64(len(ids))]
			return errOf(n.KeepAliveOnce(context.Background(), id))
		}
	}
	grantAll(b, n, ids)
	calledBy(b, 100, each)
}

func grantAll(b *testing.B, n *coterie.Node, ids []coterie.LeaseID) {
	failed := make(chan error, 100)
	var next atomic.Int64
	for range cap(failed) {
		go func() {
			for i := next.Add(1) - 1; i < int64(len(ids)); i = next.Add(1) - 1 {
				if _, err := n.Grant(context.Background(), time.Hour, coterie.WithGrantID(ids[i])); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range cap(failed) {
		require.NoError(b, <-failed)
	}
}

func BenchmarkClusterGrant(b *testing.B) {
	n := benchCluster(b)
	calledBy(b, 100, func() func() error {
		return func() error { return errOf(n.Grant(context.Background(), time.Hour)) }
	})
}

// Each transaction puts a hundred keys.
func BenchmarkClusterPutAll(b *testing.B) {
	n := benchCluster(b)
	value := strings.Repeat("v", 256)
	var next atomic.Int64
	calledBy(b, 32, func() func() error {
		return func() error {
			begin := next.Add(100)
			ops := make([]coterie.Op, 100)
			for i := range ops {
				ops[i] = coterie.OpPut(benchKey(begin+int64(i)), value)
			}
			return errOf(n.Txn(context.Background()).Then(ops...).Commit())
		}
	})
}
