// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A crash of the leader costs one election, and a little more than one election timeout.
func TestFailoverTakesAboutOneElectionTimeout(t *testing.T) {
	for _, test := range []struct {
		voters int
		delay  time.Duration
	}{{3, time.Millisecond}, {5, time.Millisecond}, {3, 10 * time.Millisecond}, {5, 10 * time.Millisecond}} {
		voters, delay := test.voters, test.delay
		t.Run(fmt.Sprint(voters, " voters, ", delay), func(t *testing.T) {
			seed := rand.Uint64()
			t.Log("seed", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			var gaps []time.Duration
			extra := 0
			coterietest.Run(t, voters, func(t *testing.T, c *coterietest.Cluster) {
				for i := range voters {
					for j := range voters {
						c.Delay(i, j, delay)
					}
					c.SlowDisk(i, 2*time.Millisecond)
				}
				for range 50 {
					leader := c.Leader()
					term, i := leader.Status().Term, c.Index(leader)
					time.Sleep(time.Duration(random.Int64N(int64(2 * time.Second))))
					other := c.Node((i + 1 + random.IntN(voters-1)) % voters)
					gap, crashed := make(chan time.Duration), time.Now()
					go func() {
						time.Sleep(time.Millisecond) // earlier writes may still be answered
						put(t, other, "k", "v")
						gap <- time.Since(crashed)
					}()
					c.Crash(i)
					gaps = append(gaps, <-gap)
					c.Restart(i)
					ready(t, c.Node(i))
					time.Sleep(2 * time.Second)
					if c.Leader().Status().Term != term+1 {
						extra++
					}
				}
			})
			slices.Sort(gaps)
			median, most := gaps[len(gaps)/2], gaps[len(gaps)-1]
			t.Logf("least %v, median %v, nine tenths %v, most %v; %d with more than one term",
				gaps[0], median, gaps[len(gaps)*9/10], most, extra)
			require.Less(t, median, 1500*time.Millisecond)
			require.LessOrEqual(t, extra, 5)
		})
	}
}

// A leader that is silent for less than an election timeout keeps the lead.
func TestLeaderSurvivesAShortSilence(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		put(t, leader, "k", "v")
		c.Crash(3 - c.Index(leader) - c.Index(n))
		term := leader.Status().Term
		for range 20 {
			time.Sleep(5 * time.Second)
			c.Pause(c.Index(n))
			time.Sleep(700 * time.Millisecond)
			c.Resume(c.Index(n))
		}
		time.Sleep(5 * time.Second)
		put(t, n, "k", "v")
		require.Equal(t, term, leader.Status().Term)
		require.Equal(t, coterie.RoleLeader, leader.Status().Role)
	})
}

// A voter that hears the leader refuses candidates that do not hear it.
func TestIsolatedFollowerDeposesNoLeader(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, n := c.Leader(), c.Follower()
		term := leader.Status().Term
		c.Block(c.Index(leader), c.Index(n))
		c.Block(c.Index(n), c.Index(leader))
		time.Sleep(time.Minute)
		require.Equal(t, term, leader.Status().Term)
		require.Equal(t, coterie.RoleLeader, leader.Status().Role)
	})
}
