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

// For many rounds, nobody begins before all have entered, nor continues before all have left.
func TestADoubleBarrierSeparatesRounds(t *testing.T) {
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
						t.Error("a participant began before all had entered")
					}
					inside[r].Add(1)
					time.Sleep(pauses[rounds+r])
					left[r].Add(1)
					if err := round.Leave(t.Context()); err != nil {
						t.Error(err)
						return
					}
					if left[r].Load() != participants {
						t.Error("a participant continued before all had left")
					}
				}
			})
		}
		trouble(c, random, &wg)
		require.LessOrEqual(t, count(t, c.Leader(), "double"), int64(1))
	})
}

func TestADoubleBarrierDropsALostParticipant(t *testing.T) {
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
		require.Empty(t, a, "a lost participant does not count")
		second := session(t, n)
		b := enter(second)
		round := <-a
		<-b
		_, err := dsync.NewDoubleBarrier(session(t, n), "double", 2).Enter(t.Context())
		require.ErrorIs(t, err, dsync.ErrFull)
		require.ErrorIs(t, round.Leave(short(t)), context.DeadlineExceeded)
		_, err = dsync.NewDoubleBarrier(session(t, n), "double", 2).Enter(t.Context())
		require.ErrorIs(t, err, dsync.ErrFull, "not all participants have left")
		require.NoError(t, second.Close())
		require.NoError(t, round.Leave(t.Context()), "a lost participant has left")
		a, b = enter(session(t, n)), enter(session(t, n))
		<-a
		<-b
		_, err = dsync.NewDoubleBarrier(session(t, n), "none", 0).Enter(t.Context())
		require.ErrorIs(t, err, coterie.ErrInvalidOption)
	})
}

// A participant that is slow to leave does not wait for participants of the next round.
func TestLeaveDoesNotWaitForTheNextRound(t *testing.T) {
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

// Participants beyond the number of the barrier get ErrFull.
func TestADoubleBarrierRejectsMore(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		const participants, all = 10, 35
		var entered, rejected atomic.Int64
		var wg sync.WaitGroup
		for i := range all {
			s := session(t, c.Node(i%3))
			wg.Go(func() {
				switch _, err := dsync.NewDoubleBarrier(s, "double", participants).Enter(t.Context()); err {
				case nil:
					entered.Add(1)
				case dsync.ErrFull:
					rejected.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, participants, entered.Load())
		require.EqualValues(t, all-participants, rejected.Load())
		time.Sleep(time.Second)
		require.EqualValues(t, participants, count(t, c.Leader(), "double/in/"))
	})
}
