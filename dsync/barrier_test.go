// SPDX-License-Identifier: Apache-2.0

package dsync_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/dsync"
)

func TestABarrierHoldsUpAllUntilItIsLifted(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		random := source(t)
		barrier := func(i int) *dsync.Barrier { return dsync.NewBarrier(c.Node(i%3), "barrier") }
		require.NoError(t, barrier(0).Wait(t.Context()))
		require.NoError(t, barrier(0).Lift(t.Context()))
		require.NoError(t, barrier(0).Raise(t.Context()))
		require.NoError(t, barrier(1).Raise(t.Context()))
		require.ErrorIs(t, barrier(2).Wait(short(t)), context.DeadlineExceeded)
		var passed atomic.Int64
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				if err := barrier(i).Wait(t.Context()); err != nil {
					t.Error(err)
				}
				passed.Add(1)
			})
		}
		wg.Go(func() {
			b := barrier(1)
			time.Sleep(time.Minute)
			if passed.Load() != 0 {
				t.Error("somebody passed")
			}
			if err := b.Lift(t.Context()); err != nil {
				t.Error(err)
			}
			if err := b.Raise(t.Context()); err != nil { // right behind them
				t.Error(err)
			}
		})
		trouble(c, random, &wg)
		require.EqualValues(t, 200, passed.Load())

		require.NoError(t, barrier(0).Lift(t.Context()))
		s := session(t, c.Follower())
		require.NoError(t, barrier(0).Raise(t.Context(), coterie.WithLease(s.Lease())))
		c.Pause(c.Index(s.Node()))
		require.NoError(t, barrier(c.Index(c.Leader())).Wait(t.Context()), "it goes with its lease")
	})
}

// Nobody begins before all have entered, nor goes on before all have left, for many rounds.
func TestADoubleBarrierKeepsRoundsApart(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const participants, rounds = 30, 10
		random := source(t)
		var entering, inside, left [rounds]atomic.Int64
		var wg sync.WaitGroup
		for i := range participants {
			s := session(t, c.Node(i%3), coterie.WithTTL(time.Hour))
			var pauses [2 * rounds]time.Duration
			for j := range pauses {
				pauses[j] = time.Duration(random.IntN(1000)) * time.Millisecond
			}
			wg.Go(func() {
				b := dsync.NewDoubleBarrier(s, "double", participants)
				for r := range rounds {
					time.Sleep(pauses[r])
					entering[r].Add(1)
					round, err := b.Enter(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					if entering[r].Load() != participants || left[r].Load() != 0 && inside[r].Load() == 0 {
						t.Error("begun before all have entered")
					}
					inside[r].Add(1)
					time.Sleep(pauses[rounds+r])
					left[r].Add(1)
					if err := round.Leave(t.Context()); err != nil {
						t.Error(err)
						return
					}
					if left[r].Load() != participants {
						t.Error("gone on before all have left")
					}
				}
			})
		}
		trouble(c, random, &wg)
		require.LessOrEqual(t, count(t, c.Leader(), "double"), int64(1))
	})
}

func TestADoubleBarrierGoesOnWithoutWhoIsGone(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		enter := func(s *coterie.Session) <-chan *dsync.Round {
			entered := make(chan *dsync.Round, 1)
			go func() {
				if r, err := dsync.NewDoubleBarrier(s, "double", 2).Enter(t.Context()); err == nil {
					entered <- r
				}
			}()
			return entered
		}
		lost := session(t, c.Follower())
		enter(lost)
		time.Sleep(time.Second)
		c.Pause(c.Index(lost.Node()))
		time.Sleep(time.Minute)
		c.Heal()
		n := c.Leader()
		a := enter(session(t, n))
		time.Sleep(time.Second)
		require.Empty(t, a, "who is gone has not entered")
		second := session(t, n)
		b := enter(second)
		round := <-a
		<-b
		_, err := dsync.NewDoubleBarrier(session(t, n), "double", 2).Enter(t.Context())
		require.ErrorIs(t, err, dsync.ErrFull)
		require.ErrorIs(t, round.Leave(short(t)), context.DeadlineExceeded)
		_, err = dsync.NewDoubleBarrier(session(t, n), "double", 2).Enter(t.Context())
		require.ErrorIs(t, err, dsync.ErrFull, "not all have left")
		require.NoError(t, second.Close())
		require.NoError(t, round.Leave(t.Context()), "who is gone has left")
		a, b = enter(session(t, n)), enter(session(t, n))
		<-a
		<-b
		_, err = dsync.NewDoubleBarrier(session(t, n), "none", 0).Enter(t.Context())
		require.ErrorIs(t, err, coterie.ErrInvalidOption)
	})
}

// Who is slow to leave does not wait for those of the next round.
func TestADoubleBarrierDoesNotMixRounds(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		slow := session(t, c.Follower(), coterie.WithTTL(time.Hour))
		fast := session(t, c.Leader(), coterie.WithTTL(time.Hour))
		enter := func(sessions ...*coterie.Session) []*dsync.Round {
			rounds := make([]*dsync.Round, len(sessions))
			var wg sync.WaitGroup
			for i, s := range sessions {
				wg.Go(func() {
					var err error
					rounds[i], err = dsync.NewDoubleBarrier(s, "double", 2).Enter(t.Context())
					if err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			return rounds
		}
		rounds := enter(slow, fast)
		left := make(chan error, 1)
		go func() { left <- rounds[0].Leave(t.Context()) }()
		time.Sleep(time.Second)
		c.Pause(c.Index(slow.Node()))
		require.NoError(t, rounds[1].Leave(t.Context()))
		enter(fast, fast)
		require.Empty(t, left)
		c.Heal()
		require.NoError(t, <-left)
	})
}

// Of more than a barrier is for, those that are too many are told.
func TestADoubleBarrierLetsNoMoreIn(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const participants, all = 10, 35
		var entered, refused atomic.Int64
		var wg sync.WaitGroup
		for i := range all {
			s := session(t, c.Node(i%3))
			wg.Go(func() {
				switch _, err := dsync.NewDoubleBarrier(s, "double", participants).Enter(t.Context()); err {
				case nil:
					entered.Add(1)
				case dsync.ErrFull:
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, participants, entered.Load())
		require.EqualValues(t, all-participants, refused.Load())
		time.Sleep(time.Second)
		require.EqualValues(t, participants, count(t, c.Leader(), "double/in/"))
	})
}
