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

// A name may continue another name: both are independent, whichever is used first.
func TestNestedNamesAreIndependent(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		s := session(t, c.Node(0))
		names := []string{"a/1", "a", "a/1/2"}
		for i := range 20 { // more than the first read returns
			names = append(names, fmt.Sprintf("a/%d/b", i), fmt.Sprintf("a/read/%d", i), fmt.Sprintf("a/write/%d", i), fmt.Sprintf("a/in/%d", i))
		}
		for name, enter := range map[string]func(name string) (func(), error){
			"lock": func(name string) (func(), error) {
				m := writer(s, name)
				return release(t, m), m.acquire(short(t))
			},
			"try lock": func(name string) (func(), error) {
				m := writer(s, name)
				return release(t, m), m.try(short(t))
			},
			"try read": func(name string) (func(), error) {
				m := reader(s, name)
				err := m.try(short(t))
				if err == nil {
					require.ErrorIs(t, writer(s, name).try(short(t)), coterie.ErrLocked)
				}
				return release(t, m), err
			},
			"acquire": func(name string) (func(), error) {
				m := permits(s, name, 1, 1)
				return release(t, m), m.acquire(short(t))
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
			for range 2 { // the second time on the keys that the first has left
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

func release(t *testing.T, m contender) func() {
	return func() { require.NoError(t, m.release(short(t))) }
}

func TestAnEmptyNameIsRejected(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		s := session(t, n)
		m, p := dsync.NewRWMutex(s, ""), dsync.NewSemaphore(s, "", 1)
		ctx := t.Context()
		_, enter := dsync.NewDoubleBarrier(s, "", 1).Enter(ctx)
		_, once := dsync.NewOnce(s, "").Do(ctx, func(context.Context) (string, error) { return "", nil })
		for name, err := range map[string]error{
			"lock": m.Lock(ctx), "try": m.TryLock(ctx), "read": m.RLock(ctx), "try read": m.TryRLock(ctx),
			"acquire": p.Acquire(ctx, 1), "try acquire": p.TryAcquire(ctx, 1),
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
