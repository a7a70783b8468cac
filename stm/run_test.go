// SPDX-License-Identifier: Apache-2.0

package stm_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/stm"
)

func alone(t *testing.T, fn func(t *testing.T, n *coterie.Node), opts ...coterietest.Option) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) { fn(t, c.Node(0)) }, opts...)
}

func put(t testing.TB, n *coterie.Node, key, val string) {
	t.Helper()
	_, err := n.Put(t.Context(), key, val)
	require.NoError(t, err)
}

func value(t testing.TB, n *coterie.Node, key string) string {
	t.Helper()
	r, err := n.Get(t.Context(), key)
	require.NoError(t, err)
	if len(r.KVs) == 0 {
		return ""
	}
	return r.KVs[0].Value
}

// number reads a number; a missing key is 0.
func number(tx *stm.Tx, key string) (int, error) {
	val, exists, err := tx.Get(key)
	if !exists || err != nil {
		return 0, err
	}
	return strconv.Atoi(val)
}

var errPoor = errors.New("too little in the account")

// transfer moves an amount once, however often it runs.
func transfer(id, from, to string, amount int) func(tx *stm.Tx) error {
	return func(tx *stm.Tx) error {
		if _, done, err := tx.Get("done/" + id); done || err != nil {
			return err
		}
		a, err := number(tx, from)
		if err != nil {
			return err
		}
		b, err := number(tx, to)
		if err != nil {
			return err
		}
		if a < amount {
			return errPoor
		}
		return errors.Join(tx.Put(from, strconv.Itoa(a-amount)), tx.Put(to, strconv.Itoa(b+amount)), tx.Put("done/"+id, ""))
	}
}

// Transfers between accounts run while leaders are lost and callers give up: the sum is right at all times, and each
// transfer is made once or, if it was rejected, never.
func TestTransfersKeepTheSum(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const accounts, each = 6, 100
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		account := func(i int) string { return fmt.Sprint("accounts/", i) }
		var mu sync.Mutex
		var balance [accounts]int
		for i := range accounts {
			put(t, c.Node(0), account(i), strconv.Itoa(each))
			balance[i] = each
		}
		ctx, done := context.WithCancel(t.Context())
		defer done()
		var made, unknown, audits atomic.Int64
		var work, audit sync.WaitGroup
		for i := range 15 {
			n := c.Node(i % 3)
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			work.Go(func() {
				for j := range 15 {
					from, to, amount := random.IntN(accounts), random.IntN(accounts-1), 1+random.IntN(60)
					if to >= from {
						to++
					}
					run := transfer(fmt.Sprint(i, "-", j), account(from), account(to), amount)
					for {
						patience, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(3000))*time.Millisecond)
						_, err := stm.Run(patience, n, run)
						cancel()
						if err == nil {
							made.Add(1)
							mu.Lock()
							balance[from] -= amount
							balance[to] += amount
							mu.Unlock()
							break
						}
						if errors.Is(err, errPoor) {
							break
						}
						if errors.Is(err, coterie.ErrMaybeApplied) {
							unknown.Add(1)
						} else if !errors.Is(err, context.DeadlineExceeded) {
							t.Error(err)
							return
						}
					}
					time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
				}
			})
		}
		for i := range 3 {
			n := c.Node(i)
			audit.Go(func() {
				for ctx.Err() == nil {
					sum := 0
					_, err := stm.Run(ctx, n, func(tx *stm.Tx) error {
						sum = 0
						for i := range accounts {
							a, err := number(tx, account(i))
							if err != nil {
								return err
							}
							sum += a
							time.Sleep(time.Millisecond) // others write meanwhile
						}
						return nil
					})
					if err == nil {
						audits.Add(1)
						if sum != accounts*each {
							t.Errorf("the sum is %d", sum)
						}
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		worked := make(chan struct{})
		go func() {
			work.Wait()
			close(worked)
		}()
		random := rand.New(rand.NewPCG(seed, 1000))
		for working := true; working; {
			for from := range 3 { // so that some calls are in flight at any time
				for to := range 3 {
					c.Delay(from, to, time.Duration(random.IntN(50))*time.Millisecond)
				}
			}
			select {
			case <-worked:
				working = false
			case <-time.After(2 * time.Second):
				c.Pause(random.IntN(3))
				time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
				c.Heal()
			}
		}
		c.Heal()
		done()
		audit.Wait()
		time.Sleep(10 * time.Second)
		t.Log(made.Load(), "made,", unknown.Load(), "of unknown outcome,", audits.Load(), "audits")
		require.Greater(t, made.Load(), int64(50))
		require.Positive(t, unknown.Load())
		require.Greater(t, audits.Load(), int64(50))
		for i := range accounts {
			require.Equal(t, strconv.Itoa(balance[i]), value(t, c.Leader(), account(i)))
		}
		r, err := c.Leader().Get(t.Context(), "done/", coterie.WithPrefix(), coterie.WithCountOnly())
		require.NoError(t, err)
		require.Equal(t, made.Load(), r.Count)
	})
}

// Of two transactions, each of which writes a key that the other has read, one runs again.
func TestThereIsNoWriteSkew(t *testing.T) {
	alone(t, func(t *testing.T, n *coterie.Node) {
		put(t, n, "on-call/a", "")
		put(t, n, "on-call/b", "")
		for name, both := range map[string]func(tx *stm.Tx) (bool, error){
			"get": func(tx *stm.Tx) (bool, error) {
				_, a, err := tx.Get("on-call/a")
				_, b, err2 := tx.Get("on-call/b")
				return a && b, errors.Join(err, err2)
			},
			"scan": func(tx *stm.Tx) (bool, error) {
				kvs, err := tx.Scan("on-call/")
				return len(kvs) == 2, err
			},
		} {
			var wg sync.WaitGroup
			for _, doctor := range []string{"on-call/a", "on-call/b"} {
				wg.Go(func() {
					_, err := stm.Run(t.Context(), n, func(tx *stm.Tx) error {
						two, err := both(tx)
						time.Sleep(time.Second) // the other reads meanwhile
						if err == nil && two {
							err = tx.Delete(doctor)
						}
						return err
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			r, err := n.Get(t.Context(), "on-call/", coterie.WithPrefix())
			require.NoError(t, err)
			require.Len(t, r.KVs, 1, name)
			put(t, n, "on-call/a", "")
			put(t, n, "on-call/b", "")
		}
	})
}

// A function runs again if a key that it has read changes, and only then.
func TestAConflictRunsAgain(t *testing.T) {
	alone(t, func(t *testing.T, n *coterie.Node) {
		del := func(key string) {
			_, err := n.Delete(t.Context(), key)
			require.NoError(t, err)
		}
		for name, c := range map[string]struct {
			read, meanwhile func(tx *stm.Tx)
			runs            int
		}{
			"a key changes":         {func(tx *stm.Tx) { _, _, _ = tx.Get("p/1") }, func(*stm.Tx) { put(t, n, "p/1", "x") }, 2},
			"a key goes":            {func(tx *stm.Tx) { _, _, _ = tx.Get("p/1") }, func(*stm.Tx) { del("p/1") }, 2},
			"a key comes":           {func(tx *stm.Tx) { _, _, _ = tx.Get("p/3") }, func(*stm.Tx) { put(t, n, "p/3", "x") }, 2},
			"another key":           {func(tx *stm.Tx) { _, _, _ = tx.Get("p/1") }, func(*stm.Tx) { put(t, n, "p/2", "x") }, 1},
			"a key of a scan":       {func(tx *stm.Tx) { _, _ = tx.Scan("p/") }, func(*stm.Tx) { put(t, n, "p/1", "x") }, 2},
			"one more in a scan":    {func(tx *stm.Tx) { _, _ = tx.Scan("p/") }, func(*stm.Tx) { put(t, n, "p/3", "x") }, 2},
			"one less in a scan":    {func(tx *stm.Tx) { _, _ = tx.Scan("p/") }, func(*stm.Tx) { del("p/2") }, 2},
			"any key, scanned":      {func(tx *stm.Tx) { _, _ = tx.Scan("") }, func(*stm.Tx) { put(t, n, "q", "x") }, 2},
			"first in an empty one": {func(tx *stm.Tx) { _, _ = tx.Scan("e/") }, func(*stm.Tx) { put(t, n, "e/1", "x") }, 2},
			"beside a scan":         {func(tx *stm.Tx) { _, _ = tx.Scan("p/") }, func(*stm.Tx) { put(t, n, "q", "x") }, 1},
			"history is compacted": {func(tx *stm.Tx) { _, _, _ = tx.Get("p/1") }, func(tx *stm.Tx) {
				put(t, n, "q", "x")
				put(t, n, "q", "y")
				_, err := n.Compact(t.Context(), n.Status().Revision)
				require.NoError(t, err)
				_, _, _ = tx.Get("p/2")
			}, 2},
		} {
			for _, key := range []string{"e/1", "p/3"} {
				del(key)
			}
			put(t, n, "p/1", "")
			put(t, n, "p/2", "")
			runs := 0
			revision, err := stm.Run(t.Context(), n, func(tx *stm.Tx) error {
				c.read(tx)
				if runs++; runs == 1 {
					c.meanwhile(tx)
				}
				return tx.Put("out", name)
			})
			require.NoError(t, err, name)
			require.Equal(t, c.runs, runs, name)
			require.Equal(t, name, value(t, n, "out"))
			require.Equal(t, n.Status().Revision, revision)
		}
	})
}

// A function sees its own writes, and all other keys at one revision.
func TestATransactionReadsOneRevision(t *testing.T) {
	alone(t, func(t *testing.T, n *coterie.Node) {
		put(t, n, "p/1", "one")
		put(t, n, "p/2", "two")
		before := n.Status().Revision
		revision, err := stm.Run(t.Context(), n, func(tx *stm.Tx) error {
			val, exists, err := tx.Get("p/1")
			require.NoError(t, err)
			require.True(t, exists)
			require.Equal(t, "one", val)
			put(t, n, "p/2", "changed")
			put(t, n, "p/9", "came")
			val, _, err = tx.Get("p/2")
			require.NoError(t, err)
			require.Equal(t, "two", val, "as it was")
			_, exists, err = tx.Get("p/9")
			require.NoError(t, err)
			require.False(t, exists)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, before, revision, "it only read")

		revision, err = stm.Run(t.Context(), n, func(tx *stm.Tx) error {
			require.NoError(t, tx.Delete("p/1"))
			require.NoError(t, tx.Delete("p/9"))
			require.NoError(t, tx.Put("p/0", "first"))
			require.NoError(t, tx.Put("p/0", "zero"))
			require.NoError(t, tx.Put("p/9", "nine"))
			val, exists, err := tx.Get("p/0")
			require.NoError(t, err)
			require.True(t, exists)
			require.Equal(t, "zero", val)
			_, exists, err = tx.Get("p/1")
			require.NoError(t, err)
			require.False(t, exists)
			kvs, err := tx.Scan("p/")
			require.NoError(t, err)
			var all []string
			for _, kv := range kvs {
				all = append(all, kv.Key+"="+kv.Value)
			}
			require.Equal(t, []string{"p/0=zero", "p/2=changed", "p/9=nine"}, all)
			return nil
		})
		require.NoError(t, err)
		r, err := n.Get(t.Context(), "p/", coterie.WithPrefix(), coterie.WithMinModRevision(revision))
		require.NoError(t, err)
		require.Len(t, r.KVs, 2, "all in one revision")
		require.EqualValues(t, 3, r.Count)
	})
}

func TestMisuseIsAnError(t *testing.T) {
	alone(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		var kept *stm.Tx
		failed := errors.New("failed")
		_, err := stm.Run(ctx, n, func(tx *stm.Tx) error {
			kept = tx
			require.ErrorIs(t, tx.Put("", "x"), coterie.ErrEmptyKey)
			require.ErrorIs(t, tx.Delete(""), coterie.ErrEmptyKey)
			require.NoError(t, tx.Put("k", "v"))
			_, err := stm.Run(tx.Context(), n, func(*stm.Tx) error { return nil })
			require.ErrorIs(t, err, stm.ErrNested)
			return failed
		})
		require.ErrorIs(t, err, failed)
		_, _, err = kept.Get("k")
		require.ErrorIs(t, err, stm.ErrTxDone)
		_, err = kept.Scan("k")
		require.ErrorIs(t, err, stm.ErrTxDone)
		require.ErrorIs(t, kept.Put("k", "v"), stm.ErrTxDone)
		require.ErrorIs(t, kept.Delete("k"), stm.ErrTxDone)
		require.ErrorIs(t, kept.If(), stm.ErrTxDone)

		require.Panics(t, func() {
			_, _ = stm.Run(ctx, n, func(tx *stm.Tx) error {
				require.NoError(t, tx.Put("k", "v"))
				panic("")
			})
		})
		_, err = stm.Run(ctx, n, func(tx *stm.Tx) error {
			_, _, _ = tx.Get("") // and does not look at the error
			return tx.Put("k", "v")
		})
		require.ErrorIs(t, err, coterie.ErrEmptyKey)
		for range 2 {
			runs := 0
			_, err = stm.Run(ctx, n, func(tx *stm.Tx) error {
				runs++
				for i := range 129 {
					require.NoError(t, tx.Put(fmt.Sprint("k", i), "v"))
				}
				return nil
			})
			require.ErrorIs(t, err, coterie.ErrTooManyOps)
			require.Equal(t, 1, runs)
		}
		_, err = stm.Run(ctx, n, func(tx *stm.Tx) error { return tx.PutWithLease("k", "v", 7) })
		require.ErrorIs(t, err, coterie.ErrLeaseNotFound)
		require.Empty(t, value(t, n, "k"), "nothing of all that was written")
	})
}

// A guard that does not hold is not a conflict: the function does not run again.
func TestAGuardIsACondition(t *testing.T) {
	alone(t, func(t *testing.T, n *coterie.Node) {
		put(t, n, "lock", "mine")
		guard := coterie.Compare(coterie.Value("lock"), "=", "mine")
		runs := 0
		guarded := func(tx *stm.Tx) error {
			val, _, err := tx.Get("k")
			require.NoError(t, err)
			if runs++; runs == 1 {
				put(t, n, "k", "x") // a conflict is tried again if the guard holds
			}
			return errors.Join(tx.If(guard), tx.Put("k", val+"y"))
		}
		_, err := stm.Run(t.Context(), n, guarded)
		require.NoError(t, err)
		require.Equal(t, "xy", value(t, n, "k"))
		put(t, n, "lock", "another's")
		_, err = stm.Run(t.Context(), n, guarded)
		require.ErrorIs(t, err, coterie.ErrNotOwner)
		_, err = stm.Run(t.Context(), n, func(tx *stm.Tx) error { return tx.If(guard) })
		require.ErrorIs(t, err, coterie.ErrNotOwner)
		require.Equal(t, "xy", value(t, n, "k"))
		require.Equal(t, 3, runs)
	})
}

// A write that the node rejects because it is overloaded is tried again.
func TestRunRetriesOnAnOverloadedNode(t *testing.T) {
	alone(t, func(t *testing.T, n *coterie.Node) {
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				_, err := stm.Run(t.Context(), n, func(tx *stm.Tx) error {
					i, err := number(tx, "k")
					if err != nil {
						return err
					}
					return tx.Put("k", strconv.Itoa(i+1))
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, "50", value(t, n, "k"))
	}, coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.MaxPendingCalls = 1 }))
}

// Run returns when its context ends, between attempts and while the cluster does not answer.
func TestRunEndsWithItsContext(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		i := 0
		_, err := stm.Run(ctx, n, func(tx *stm.Tx) error {
			i++
			_, _, err := tx.Get("k")
			if err == nil {
				_, err = n.Put(t.Context(), "k", strconv.Itoa(i))
			}
			return errors.Join(err, tx.Put("k", "never"))
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Greater(t, i, 2)
		require.NotEqual(t, "never", value(t, n, "k"))

		c.Pause(c.Index(n))
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin, runs := time.Now(), 0
		_, err = stm.Run(ctx, n, func(tx *stm.Tx) error {
			runs++
			return tx.Put("k", "v")
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(begin))
		require.Equal(t, 1, runs)
	})
}
