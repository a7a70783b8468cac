// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

func TestElectionGuards(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		e := coterie.NewElection(session(t, n), "election")
		require.ErrorIs(t, e.Proclaim(ctx, "x"), coterie.ErrNotOwner)
		require.ErrorIs(t, e.Resign(ctx), coterie.ErrNotOwner)
		held := func() bool { return commit(t, n.Txn(ctx).If(e.Guard())).Succeeded }
		require.False(t, held())
		require.NoError(t, e.Campaign(ctx, "a"))
		require.True(t, held())
		require.NoError(t, e.Campaign(ctx, "b"), "a leader that campaigns again proclaims")
		info, err := e.Leader(ctx)
		require.NoError(t, err)
		require.Equal(t, "b", info.Value)
		del(t, n, info.Key)
		require.False(t, held())
		require.ErrorIs(t, e.Proclaim(ctx, "c"), coterie.ErrNotOwner)
		require.NoError(t, e.Campaign(ctx, "d"))
		require.NoError(t, e.Resign(ctx))
	})
}

func TestResumeElectionLeadsOn(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		ctx, n := t.Context(), c.Follower()
		before := coterie.NewElection(session(t, n, coterie.WithTTL(time.Minute)), "job")
		require.Empty(t, before.Key())
		require.NoError(t, before.Campaign(ctx, "before"))
		rival := coterie.NewElection(session(t, c.Leader(), coterie.WithTTL(time.Hour)), "job")
		won := make(chan error, 1)
		go func() { won <- rival.Campaign(ctx, "rival") }()
		time.Sleep(time.Second)
		key, token := before.Key(), before.Token()
		lease := get(t, n, key).KVs[0].Lease
		c.Crash(c.Index(n))
		time.Sleep(20 * time.Second)

		n = c.Leader()
		s := session(t, n, coterie.WithExistingLease(lease))
		e, err := coterie.ResumeElection(ctx, s, "job")
		require.NoError(t, err)
		require.Equal(t, key, e.Key())
		require.Equal(t, token, e.Token())
		require.True(t, commit(t, n.Txn(ctx).If(e.Guard())).Succeeded)
		require.NoError(t, e.Campaign(ctx, "after"))
		require.Equal(t, key, e.Key(), "there was no other election")
		leader, err := e.Leader(ctx)
		require.NoError(t, err)
		require.Equal(t, coterie.ElectionLeader{Key: key, Value: "after", Token: token, Elected: true}, leader)
		time.Sleep(10 * time.Minute)
		require.Empty(t, won)
		require.NoError(t, e.Resign(ctx))
		require.NoError(t, <-won)
		require.Empty(t, e.Key())
	})
}

func TestResumeElectionWithoutLeadership(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		s := session(t, n)
		e, err := coterie.ResumeElection(ctx, s, "job")
		require.NoError(t, err)
		require.Empty(t, e.Key())
		require.Zero(t, e.Token())
		require.NoError(t, e.Campaign(ctx, "first"))

		// A candidacy without a process would lead and do nothing.
		other := session(t, n)
		forgotten := make(chan error, 1)
		go func() { forgotten <- coterie.NewElection(other, "job").Campaign(ctx, "forgotten") }()
		put(t, n, fmt.Sprintf("job/%v-note", other.Lease()), "no candidacy")
		put(t, n, fmt.Sprintf("job/2/%v-00000000", other.Lease()), "of another prefix")
		synctest.Wait()
		resumed, err := coterie.ResumeElection(ctx, session(t, n, coterie.WithExistingLease(other.Lease())), "job")
		require.NoError(t, err)
		require.Empty(t, resumed.Key())
		require.Len(t, get(t, n, "job/", coterie.WithPrefix()).KVs, 3)
		require.NoError(t, e.Resign(ctx))
		require.ErrorIs(t, <-forgotten, coterie.ErrNotOwner)
		require.NoError(t, resumed.Campaign(ctx, "resumed"))

		_, err = coterie.ResumeElection(ctx, other, "")
		require.ErrorIs(t, err, coterie.ErrInvalidOption)
		require.NoError(t, other.Close())
		_, err = coterie.ResumeElection(ctx, other, "job")
		require.ErrorIs(t, err, coterie.ErrSessionExpired)
	})
}

// Of two candidacies of one lease, the one that leads is resumed, and the other is deleted.
func TestResumeElectionOfTwoCandidacies(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		s := session(t, n)
		first, second := coterie.NewElection(s, "job"), coterie.NewElection(s, "job")
		require.NoError(t, first.Campaign(t.Context(), "first"))
		lost := make(chan error, 1)
		go func() { lost <- second.Campaign(t.Context(), "second") }()
		synctest.Wait()
		e, err := coterie.ResumeElection(t.Context(), s, "job")
		require.NoError(t, err)
		require.Equal(t, first.Key(), e.Key())
		require.NoError(t, e.Resign(t.Context()))
		require.ErrorIs(t, <-lost, coterie.ErrNotOwner)
	})
}

// An observer without a session sees the leader of RunAsLeader, and that there is none.
func TestObserveElectionNeedsNoSession(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		next, stop := iter.Pull2(coterie.ObserveElection(t.Context(), c.Follower(), "job"))
		defer stop()
		see := func() coterie.ElectionLeader {
			info, err, ok := next()
			require.NoError(t, err)
			require.True(t, ok)
			return info
		}
		require.False(t, see().Elected)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		tokens := make(chan int64, 1)
		go func() {
			ended <- coterie.RunAsLeader(ctx, c.Leader(), "job", "a", func(ctx context.Context, token int64) error {
				tokens <- token
				<-ctx.Done()
				return nil
			})
		}()
		info := see()
		require.Equal(t, "a", info.Value)
		require.Equal(t, <-tokens, info.Token)
		cancel()
		<-ended
		require.False(t, see().Elected)
	})
}

// An observer that is slower than the compaction of history sees the present leader.
func TestObserveElectionAfterCompaction(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		e := coterie.NewElection(session(t, n), "election")
		require.NoError(t, e.Campaign(t.Context(), "first"))
		next, stop := iter.Pull2(coterie.ObserveElection(t.Context(), n, "election"))
		defer stop()
		info, err, _ := next()
		require.NoError(t, err)
		require.Equal(t, "first", info.Value)
		require.NoError(t, e.Proclaim(t.Context(), "second"))
		require.NoError(t, e.Proclaim(t.Context(), "third"))
		require.NoError(t, errOf(n.Compact(t.Context(), n.Status().Revision)))
		info, err, _ = next()
		require.NoError(t, err)
		require.Equal(t, "third", info.Value)
	})
}

func TestK2_FailedCampaignLeavesNoCandidate(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		e := coterie.NewElection(session(t, n), "election")
		c.Pause(c.Index(n))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, e.Campaign(ctx, "zombie"), context.DeadlineExceeded)
		c.Heal()
		time.Sleep(10 * time.Second)
		require.Empty(t, get(t, n, "election", coterie.WithPrefix()).KVs)
	})
}

func TestK2_FailedResignCanBeRepeated(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Follower()
		e := coterie.NewElection(session(t, n, coterie.WithTTL(time.Minute)), "election")
		require.NoError(t, e.Campaign(t.Context(), "a"))
		c.Pause(c.Index(n))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, e.Resign(ctx), context.DeadlineExceeded)
		c.Heal()
		// The first Resign was applied, though its outcome was unknown, or the second one is.
		if err := e.Resign(t.Context()); err != nil {
			require.ErrorIs(t, err, coterie.ErrNotOwner)
		}
		info, err := e.Leader(t.Context())
		require.NoError(t, err)
		require.False(t, info.Elected)
	})
}

func TestK2_ObserveReportsVacancy(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx, cancel := context.WithCancel(t.Context())
		e := coterie.NewElection(session(t, n), "election")
		seen := make(chan coterie.ElectionLeader)
		ended := make(chan error, 1)
		go func() {
			for info, err := range e.Observe(ctx) {
				if err != nil {
					ended <- err
					return
				}
				seen <- info
			}
		}()
		require.Equal(t, coterie.ElectionLeader{}, <-seen, "there is no leader yet")
		require.NoError(t, e.Campaign(ctx, "one"))
		info := <-seen
		require.True(t, info.Elected)
		require.Equal(t, "one", info.Value)
		require.Equal(t, e.Token(), info.Token)
		require.NoError(t, e.Proclaim(ctx, "two"))
		require.Equal(t, "two", (<-seen).Value)
		require.NoError(t, e.Resign(ctx))
		require.Equal(t, coterie.ElectionLeader{}, <-seen, "there is no leader any more")
		require.NoError(t, errOf(n.Compact(ctx, n.Status().Revision)))
		require.NoError(t, e.Campaign(ctx, "three"))
		require.Equal(t, "three", (<-seen).Value)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func TestK2_CampaignFailsWithoutItsKey(t *testing.T) {
	bubble(t, func(t *testing.T, n *coterie.Node) {
		ctx := t.Context()
		first := coterie.NewElection(session(t, n), "election")
		require.NoError(t, first.Campaign(ctx, "first"))
		campaign := make(chan error)
		go func() { campaign <- coterie.NewElection(session(t, n), "election").Campaign(ctx, "second") }()
		time.Sleep(time.Second)
		for _, kv := range get(t, n, "election/", coterie.WithPrefix()).KVs {
			if kv.Value == "second" {
				del(t, n, kv.Key)
			}
		}
		require.NoError(t, first.Resign(ctx))
		require.ErrorIs(t, <-campaign, coterie.ErrNotOwner)
	})
}
