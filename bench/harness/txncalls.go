// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// newSwaps returns the job in which each caller replaces the value of a key of its own, if nobody else did meanwhile.
func newSwaps(_ context.Context, b base) (Job, error) {
	keys, revisions := make([]string, b.Callers), make([]int64, b.Callers)
	for i := range keys {
		keys[i] = keyOf(newPrefix, int64(i))
	}
	return newCalls(b, func(ctx context.Context, s Store, n int64) error {
		t, err := as[Txner](s)
		if err != nil {
			return err
		}
		caller := n % int64(b.Callers)
		revisions[caller], err = t.Swap(ctx, keys[caller], b.values.of(n), revisions[caller])
		return err
	}, func(ctx context.Context, c *calls) error {
		for i, made := range c.made {
			n := (made-1)*int64(c.Callers) + int64(i)
			if made == 0 {
				continue
			}
			if err := c.sys.Stores[i%len(c.sys.Stores)].Get(ctx, keys[i], c.values.of(n), false); err != nil {
				return err
			}
		}
		return nil
	}), nil
}

// A batches puts the new keys of a batch, with the same values for each batch, in one transaction.
type batches struct{ values []string }

func newBatches(b base) batches {
	v := make([]string, b.Batch)
	for i := range v {
		v[i] = b.values.of(int64(i))
	}
	return batches{v}
}

// put puts the batch with number n and returns its keys, in their order.
func (b batches) put(ctx context.Context, s Store, n int64) ([]string, error) {
	t, err := as[Txner](s)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(b.values))
	for i := range keys {
		keys[i] = keyOf(newPrefix, n*int64(len(keys))+int64(i))
	}
	_, err = t.PutAll(ctx, keys, b.values)
	return keys, err
}

// newTxns returns the job that puts Batch new keys in each transaction.
func newTxns(_ context.Context, b base) (Job, error) {
	batches := newBatches(b)
	return newCalls(b, func(ctx context.Context, s Store, n int64) error {
		_, err := batches.put(ctx, s, n)
		return err
	}, nil), nil
}

// compactEvery is the time between two compactions of newCompactions.
const compactEvery = 100 * time.Millisecond

// newCompactions returns the job that puts the old keys again while another goroutine compacts the history every 100 ms.
func newCompactions(ctx context.Context, b base) (Job, error) {
	t, err := as[Txner](b.sys.Stores[0])
	if err != nil {
		return nil, err
	}
	if len(b.keys) == 0 {
		return nil, errNoKeys
	}
	var newest atomic.Int64 // a revision
	c := newCalls(b, func(ctx context.Context, s Store, n int64) error {
		i := b.old(n)
		if n%100 > 0 {
			return s.Put(ctx, b.keys[i], b.values.of(i))
		}
		t, err := as[Txner](s)
		if err != nil {
			return err
		}
		revision, err := t.PutAll(ctx, b.keys[i:i+1], []string{b.values.of(i)}) // a put that returns its revision
		if err == nil {
			newest.Store(revision)
		}
		return err
	}, nil)
	compacting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var failed error
	var working sync.WaitGroup
	working.Go(func() {
		for last := int64(0); compacting.Err() == nil; {
			if revision := newest.Load(); revision > last {
				if failed = t.Compact(compacting, revision); failed != nil {
					break
				}
				last = revision
			}
			select {
			case <-time.After(compactEvery):
			case <-compacting.Done():
			}
		}
		if compacting.Err() != nil {
			failed = nil
		}
	})
	c.close = func() error {
		cancel()
		working.Wait()
		return failed
	}
	return c, nil
}
