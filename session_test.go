// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func session(t testing.TB, n *coterie.Node, opts ...coterie.SessionOption) *coterie.Session {
	t.Helper()
	s, err := coterie.NewSession(t.Context(), n, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { s.Orphan() })
	return s
}

func TestSessionLifeAndEnd(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		s := session(t, n)
		put(t, n, "k", "v", coterie.WithLease(s.Lease()))
		time.Sleep(time.Hour)
		require.NoError(t, s.Context().Err())
		require.Len(t, get(t, n, "k").KVs, 1)
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		require.ErrorIs(t, context.Cause(s.Context()), coterie.ErrSessionExpired)
		require.Empty(t, get(t, n, "k").KVs)

		s = session(t, n, coterie.WithTTL(time.Minute))
		put(t, n, "k", "v", coterie.WithLease(s.Lease()))
		s.Orphan()
		again := session(t, n, coterie.WithExistingLease(s.Lease()))
		time.Sleep(time.Hour)
		require.Len(t, get(t, n, "k").KVs, 1, "continued by another session")
		require.NoError(t, errOf(n.Revoke(t.Context(), again.Lease())))
		<-again.Context().Done()
		require.ErrorIs(t, context.Cause(again.Context()), coterie.ErrLeaseNotFound)
		_, err := coterie.NewSession(t.Context(), n, coterie.WithExistingLease(again.Lease()))
		require.ErrorIs(t, err, coterie.ErrLeaseNotFound)
		_, err = coterie.NewSession(t.Context(), n, coterie.WithTTL(300))
		require.ErrorIs(t, err, coterie.ErrTTLRange)
	})
}

// L4: a holder learns of the expiry by its own clock, before another node can act on it.
func TestL4_HolderIsNotifiedFirst(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		holder := c.Follower()
		s := session(t, holder, coterie.WithTTL(10*time.Second))
		put(t, holder, "held", "v", coterie.WithLease(s.Lease()))
		other := c.Leader()
		watch := other.WatchChan(t.Context(), "held")
		time.Sleep(time.Minute)
		c.Pause(c.Index(holder))
		<-s.Context().Done()
		notified := time.Now()
		require.ErrorIs(t, context.Cause(s.Context()), coterie.ErrSessionExpired)
		require.Equal(t, coterie.EventDelete, next(t, watch).Events[0].Type)
		require.GreaterOrEqual(t, time.Since(notified), 100*time.Millisecond, "the other side acts later")
		err := coterie.NewMutex(s, "lock").Lock(t.Context())
		require.ErrorIs(t, err, coterie.ErrSessionExpired)
	})
}

func TestSessionOutlivesLeaders(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		holder := c.Follower()
		s := session(t, holder)
		for range 3 {
			i := c.Index(c.Leader())
			if c.Node(i) == holder {
				break
			}
			c.Crash(i)
			time.Sleep(10 * time.Second)
			c.Restart(i)
			time.Sleep(10 * time.Second)
		}
		require.NoError(t, s.Context().Err())
	})
}

func TestSessionDone(t *testing.T) {
	for name, end := range map[string]func(c *coterietest.Cluster, s *coterie.Session) error{
		"closed":   func(_ *coterietest.Cluster, s *coterie.Session) error { return s.Close() },
		"orphaned": func(_ *coterietest.Cluster, s *coterie.Session) error { s.Orphan(); return nil },
		"revoked": func(c *coterietest.Cluster, s *coterie.Session) error {
			return errOf(c.Node(0).Revoke(context.Background(), s.Lease()))
		},
		"node stopped": func(c *coterietest.Cluster, _ *coterie.Session) error { c.Stop(0); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
				s := session(t, c.Node(0))
				time.Sleep(time.Hour)
				select {
				case <-s.Done():
					t.Fatal("it lives")
				default:
				}
				require.NoError(t, end(c, s))
				<-s.Done()
				require.ErrorIs(t, s.Err(), coterie.ErrSessionExpired)
			})
		})
	}
}

// A new leader extends a lease by its whole TTL, so the lease may outlive its session.
func TestCloseRevokesAnExtendedLease(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		s := session(t, n, coterie.WithTTL(10*time.Second))
		require.NoError(t, coterie.NewMutex(s, "lock").Lock(t.Context()))
		leader := c.Index(c.Leader())
		c.Pause(c.Index(n))
		time.Sleep(5 * time.Second)
		c.Restart(leader)
		<-s.Context().Done()
		c.Heal()
		require.NoError(t, n.Ready(t.Context()))
		all, err := n.Leases(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, all.Leases)
		require.NoError(t, s.Close())
		all, err = n.Leases(t.Context())
		require.NoError(t, err)
		require.Empty(t, all.Leases)
	})
}

func TestWorkContextEndsWithEither(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		s := session(t, n)
		bound, cancel := s.WorkContext(t.Context())
		require.NoError(t, bound.Err())
		cancel()
		require.ErrorIs(t, context.Cause(bound), context.Canceled)

		outer, end := context.WithCancelCause(t.Context())
		bound, cancel = s.WorkContext(outer)
		defer cancel()
		end(coterie.ErrLocked)
		require.ErrorIs(t, context.Cause(bound), coterie.ErrLocked)

		bound, cancel = s.WorkContext(t.Context())
		defer cancel()
		s.Orphan()
		<-bound.Done()
		require.ErrorIs(t, context.Cause(bound), coterie.ErrSessionExpired)
		bound, cancel = s.WorkContext(t.Context())
		defer cancel()
		require.ErrorIs(t, context.Cause(bound), coterie.ErrSessionExpired, "at once")
	})
}

// A transaction that is applied after its caller or its session has given up is undone. The lease lives on.
func TestCommitOrUndoUndoes(t *testing.T) {
	for name, c := range map[string]struct {
		giveUp func(context.CancelFunc, *coterie.Session)
		prefix string
	}{
		"by its caller":  {func(cancel context.CancelFunc, _ *coterie.Session) { cancel() }, ""},
		"by its session": {func(_ context.CancelFunc, s *coterie.Session) { s.Orphan() }, ""},
		"of a namespace": {func(cancel context.CancelFunc, _ *coterie.Session) { cancel() }, "prefix/"},
	} {
		giveUp, prefix := c.giveUp, c.prefix
		t.Run(name, func(t *testing.T) {
			coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
				n := c.Follower()
				s := session(t, n, coterie.WithTTL(time.Hour))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				watch := n.WatchChan(t.Context(), prefix+"place")
				for _, i := range []int{0, 1, 2} {
					c.Delay(i, c.Index(n), 300*time.Millisecond)
				}
				done := make(chan error, 1)
				go func() {
					_, err := s.CommitOrUndo(coterie.NewNamespace(n, prefix).Txn(ctx).Then(coterie.OpPut("place", "", coterie.WithLease(s.Lease()))),
						coterie.OpDelete("place"))
					done <- err
				}()
				time.Sleep(100 * time.Millisecond)
				giveUp(cancel, s)
				require.Error(t, <-done)
				require.Equal(t, coterie.EventPut, next(t, watch).Events[0].Type)
				time.Sleep(10 * time.Second)
				require.Empty(t, get(t, n, prefix+"place").KVs)
				_, err := n.TimeToLive(t.Context(), s.Lease())
				require.NoError(t, err)
			})
		})
	}
}

func TestCommitOrUndoRejects(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		s := session(t, n)
		over, cancel := context.WithCancelCause(t.Context())
		cancel(coterie.ErrLocked)
		before := get(t, n, "k").Revision
		_, err := s.CommitOrUndo(n.Txn(over).Then(coterie.OpPut("k", "")), coterie.OpDelete("k"))
		require.ErrorIs(t, err, coterie.ErrLocked)
		time.Sleep(time.Second)
		require.Equal(t, before, get(t, n, "k").Revision, "nothing was written")

		commit := func(t *coterie.Txn, undo ...coterie.Op) error {
			_, err := s.CommitOrUndo(t, undo...)
			return err
		}
		txn := func() *coterie.Txn {
			return n.Txn(t.Context()).Then(coterie.OpPut("k", "", coterie.WithLease(s.Lease())))
		}
		require.ErrorIs(t, commit(&coterie.Txn{}), coterie.ErrInvalidOption)
		require.ErrorIs(t, commit(n.Txn(t.Context()).Then(coterie.OpPut("", ""))), coterie.ErrEmptyKey)
		require.ErrorIs(t, commit(txn(), coterie.OpDelete("")), coterie.ErrEmptyKey, "it could not be undone")
		require.Empty(t, get(t, n, "k").KVs)
		require.NoError(t, commit(txn(), coterie.OpDelete("k")))
		require.Len(t, get(t, n, "k").KVs, 1)

		other := n.Txn(t.Context()).Then(coterie.OpPut("k", "", coterie.WithLease(7)))
		require.ErrorIs(t, commit(other), coterie.ErrLeaseNotFound)
		require.NoError(t, s.Err(), "another lease is gone")

		require.NoError(t, errOf(n.Revoke(t.Context(), s.Lease())))
		require.ErrorIs(t, commit(txn(), coterie.OpDelete("k")), coterie.ErrSessionExpired)
		require.ErrorIs(t, context.Cause(s.Context()), coterie.ErrLeaseNotFound)
		require.ErrorIs(t, commit(txn(), coterie.OpDelete("k")), coterie.ErrSessionExpired)
	})
}
