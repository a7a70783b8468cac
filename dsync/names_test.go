// SPDX-License-Identifier: Apache-2.0

package dsync_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/dsync"
)

// The name of one continues that of another: all can be had at the same time, in both orders.
func TestNestedNamesAreIndependent(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		s := session(t, c.Node(0))
		names := []string{"a/1", "a", "a/1/2"}
		for i := range 20 { // more than are read at first
			names = append(names, fmt.Sprintf("a/%d/b", i), fmt.Sprintf("a/read/%d", i), fmt.Sprintf("a/write/%d", i), fmt.Sprintf("a/in/%d", i))
		}
		for name, enter := range map[string]func(name string) (func(), error){
			"lock": func(name string) (func(), error) {
				h, err := dsync.NewRWMutex(s, name).Lock(short(t))
				return release(t, h, err)
			},
			"try lock": func(name string) (func(), error) {
				h, err := dsync.NewRWMutex(s, name).TryLock(short(t))
				return release(t, h, err)
			},
			"try read": func(name string) (func(), error) {
				m := dsync.NewRWMutex(s, name)
				h, err := m.TryRLock(short(t))
				if err == nil {
					_, err := m.TryLock(short(t))
					require.ErrorIs(t, err, coterie.ErrLocked)
				}
				return release(t, h, err)
			},
			"acquire": func(name string) (func(), error) {
				h, err := dsync.NewSemaphore(s, name, 1).Acquire(short(t), 1)
				return release(t, h, err)
			},
			"barrier": func(name string) (func(), error) {
				round, err := dsync.NewDoubleBarrier(s, name, 1).Enter(short(t))
				return func() { require.NoError(t, round.Leave(short(t))) }, err
			},
			"once": func(name string) (func(), error) {
				held := make(chan struct{})
				begun, ended := make(chan error, 1), make(chan error, 1)
				go func() {
					_, err := dsync.NewOnce(s, name).Do(short(t), func(context.Context) (string, error) {
						begun <- nil
						<-held
						return "", nil
					})
					begun <- err
					ended <- err
				}()
				return func() { close(held); require.NoError(t, <-ended) }, <-begun
			},
		} {
			for range 2 { // again, as it was left
				var leave []func()
				for _, n := range names {
					f, err := enter(n)
					require.NoError(t, err, "%s %s", name, n)
					leave = append(leave, f)
				}
				for _, f := range leave {
					f()
				}
			}
			_, err := c.Node(0).Delete(t.Context(), "", coterie.WithPrefix())
			require.NoError(t, err)
		}
	})
}

func release(t *testing.T, h *dsync.Hold, err error) (func(), error) {
	return func() { require.NoError(t, h.Release(short(t))) }, err
}

func TestAnEmptyNameIsRefused(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		s := session(t, n)
		m, p := dsync.NewRWMutex(s, ""), dsync.NewSemaphore(s, "", 1)
		ctx := t.Context()
		_, lock := m.Lock(ctx)
		_, try := m.TryLock(ctx)
		_, read := m.RLock(ctx)
		_, tryRead := m.TryRLock(ctx)
		_, acquire := p.Acquire(ctx, 1)
		_, tryAcquire := p.TryAcquire(ctx, 1)
		_, enter := dsync.NewDoubleBarrier(s, "", 1).Enter(ctx)
		_, once := dsync.NewOnce(s, "").Do(ctx, func(context.Context) (string, error) { return "", nil })
		for name, err := range map[string]error{
			"lock": lock, "try": try, "read": read, "try read": tryRead, "acquire": acquire, "try acquire": tryAcquire,
			"enter": enter, "once": once,
		} {
			require.ErrorIs(t, err, coterie.ErrInvalidOption, name)
		}
		_, add := dsync.NewCounter(n, "").Add(ctx, 1)
		_, get := dsync.NewCounter(n, "").Get(ctx)
		_, appended := dsync.NewSequence(n, "").Append(ctx, "v")
		b := dsync.NewBarrier(n, "")
		for name, err := range map[string]error{"add": add, "get": get, "append": appended, "raise": b.Raise(ctx), "lift": b.Lift(ctx), "wait": b.Wait(ctx)} {
			require.ErrorIs(t, err, coterie.ErrEmptyKey, name)
		}
	})
}
