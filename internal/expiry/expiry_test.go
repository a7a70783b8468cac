// SPDX-License-Identifier: Apache-2.0

package expiry_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/expiry"
	"github.com/coterie-kv/coterie/internal/fault"
	"github.com/coterie-kv/coterie/internal/lease"
)

const retry = 2 * time.Second

// A node is the host of an Expirer. It keeps the expiries that were proposed; the test applies them.
type node struct {
	e       *expiry.Expirer
	table   *lease.Table
	closing chan struct{}

	// These are the results of Confirm.
	index, term uint64
	err         error

	mu       sync.Mutex // guards proposed
	proposed []proposal
}

type proposal struct {
	ids  []int64
	term uint64
}

func (n *node) Closing() <-chan struct{} { return n.closing }

func (n *node) Confirm(context.Context) (index, term uint64, err error) {
	return n.index, n.term, n.err
}

func (n *node) Expire(ids []int64, term uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.proposed = append(n.proposed, proposal{ids, term})
}

// grant applies the grant of a lease as the leader of the term that Confirm returns.
func (n *node) grant(id int64, ttl time.Duration) {
	l := lease.Lease{ID: id, TTL: ttl}
	n.table.Grant(l)
	n.e.Applied(n.term, n.table.Freeze(), []lease.Lease{l})
}

// end applies the end of a lease.
func (n *node) end(id int64) {
	n.table.Remove(id)
	n.e.Applied(n.term, n.table.Freeze(), []lease.Lease{{ID: id}})
}

// lead makes the node the leader of a term, and applies the first command of that term.
func (n *node) lead(term uint64) {
	n.term = term
	n.e.Applied(term, n.table.Freeze(), nil)
}

// expiries returns what was proposed since the last call.
func (n *node) expiries() []proposal {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.proposed
	n.proposed = nil
	return all
}

func (n *node) renew(t *testing.T, id int64) expiry.Renewal {
	t.Helper()
	renewals, err := n.e.Renew(t.Context(), []int64{id})
	require.NoError(t, err)
	require.Len(t, renewals, 1)
	return renewals[0]
}

// run tests the Expirer of a node that does not lead.
func run(t *testing.T, test func(t *testing.T, n *node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &node{table: lease.NewTable(), closing: make(chan struct{}), index: 42}
		n.e = expiry.New(n, retry)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			n.e.Run()
		}()
		defer func() {
			close(n.closing)
			<-ended
		}()
		synctest.Wait()
		test(t, n)
	})
}

func TestLeaseExpiresAtItsDeadline(t *testing.T) {
	run(t, func(t *testing.T, n *node) {
		n.lead(7)
		n.grant(1, 10*time.Second)
		n.grant(2, 5*time.Second)
		n.grant(3, 3*time.Hour)
		n.end(2)
		time.Sleep(10*time.Second - 1)
		require.Empty(t, n.expiries())
		time.Sleep(time.Nanosecond)
		require.Equal(t, []proposal{{[]int64{1}, 7}}, n.expiries(), "the proposal has the term")
		n.end(1)
		time.Sleep(3*time.Hour - 10*time.Second - 1)
		require.Empty(t, n.expiries())
		time.Sleep(time.Nanosecond)
		require.Equal(t, []proposal{{[]int64{3}, 7}}, n.expiries())
	})
}

func TestShorterLeaseIsNoticed(t *testing.T) {
	run(t, func(t *testing.T, n *node) {
		n.lead(7)
		n.grant(1, time.Hour)
		require.Empty(t, n.expiries())
		n.grant(2, time.Second)
		time.Sleep(time.Second)
		require.Equal(t, []proposal{{[]int64{2}, 7}}, n.expiries())
	})
}

func TestManyLeasesTakeSeveralProposals(t *testing.T) {
	run(t, func(t *testing.T, n *node) {
		n.lead(7)
		for id := range int64(2500) {
			n.grant(id+1, time.Second)
		}
		time.Sleep(time.Second)
		all := n.expiries()
		require.Len(t, all, 3)
		seen := map[int64]bool{}
		for _, p := range all {
			require.LessOrEqual(t, len(p.ids), 1000)
			require.EqualValues(t, 7, p.term)
			for _, id := range p.ids {
				seen[id] = true
			}
		}
		require.Len(t, seen, 2500)
	})
}

func TestFollowerExpiresNothing(t *testing.T) {
	run(t, func(t *testing.T, n *node) {
		n.table.Grant(lease.Lease{ID: 1, TTL: time.Second})
		time.Sleep(time.Hour)
		require.Empty(t, n.expiries(), "it has not led yet")
		n.lead(7)
		time.Sleep(time.Second / 2)
		n.e.Demote()
		time.Sleep(time.Hour)
		require.Empty(t, n.expiries(), "it does not lead any more")
	})
}

func TestNewTermGivesLeasesTheirFullTTL(t *testing.T) {
	for name, between := range map[string]func(*node){
		"demoted":        func(n *node) { n.e.Demote() },
		"elected again":  func(*node) {},
		"while it ended": func(n *node) { time.Sleep(2 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, n *node) {
				n.lead(7)
				n.grant(1, 10*time.Second)
				time.Sleep(9 * time.Second)
				between(n)
				n.expiries()
				n.lead(9)
				require.EqualValues(t, 10*time.Second, n.renew(t, 1), "no expiry of this term was proposed")
				time.Sleep(10*time.Second - 1)
				require.Empty(t, n.expiries())
				time.Sleep(time.Nanosecond)
				require.Equal(t, []proposal{{[]int64{1}, 9}}, n.expiries())
			})
		})
	}
}

func TestLeasesOfTheFirstBatchAreKept(t *testing.T) {
	run(t, func(t *testing.T, n *node) {
		n.term = 7
		n.grant(1, time.Second) // with the first command of the term
		time.Sleep(time.Second)
		require.Equal(t, []proposal{{[]int64{1}, 7}}, n.expiries())
	})
}

func TestRenewalPostponesTheExpiry(t *testing.T) {
	run(t, func(t *testing.T, n *node) {
		n.lead(7)
		n.grant(1, 10*time.Second)
		for range 5 {
			time.Sleep(10*time.Second - 1)
			require.EqualValues(t, 10*time.Second, n.renew(t, 1))
		}
		time.Sleep(10*time.Second - 1)
		require.Empty(t, n.expiries())
		time.Sleep(time.Nanosecond)
		require.Len(t, n.expiries(), 1)
	})
}

func TestRenewalWaitsForTheOutcomeOfExpiry(t *testing.T) {
	run(t, func(t *testing.T, n *node) {
		n.lead(7)
		n.grant(1, 10*time.Second)
		n.grant(2, time.Hour)
		time.Sleep(10 * time.Second)
		require.Len(t, n.expiries(), 1)
		renewals, err := n.e.Renew(t.Context(), []int64{1, 2, 3})
		require.NoError(t, err)
		require.Equal(t, []expiry.Renewal{expiry.Ending, expiry.Renewal(time.Hour), expiry.Unknown}, renewals)
		all, err := n.e.TimeToLive(t.Context(), []int64{1})
		require.NoError(t, err)
		require.Equal(t, []expiry.Lifetime{{TTL: 10 * time.Second, Index: 42}}, all)
		for range 3 { // the proposal was dropped
			time.Sleep(retry - 1)
			require.Empty(t, n.expiries())
			time.Sleep(time.Nanosecond)
			require.Equal(t, []proposal{{[]int64{1}, 7}}, n.expiries())
			require.Equal(t, expiry.Ending, n.renew(t, 1))
		}
		n.end(1)
		require.Equal(t, expiry.Unknown, n.renew(t, 1))
		time.Sleep(time.Minute)
		require.Empty(t, n.expiries())
	})
}

func TestTimeToLiveAnswersAtOneIndex(t *testing.T) {
	run(t, func(t *testing.T, n *node) {
		n.lead(7)
		n.grant(1, 10*time.Second)
		time.Sleep(3 * time.Second)
		all, err := n.e.TimeToLive(t.Context(), []int64{1, 2})
		require.NoError(t, err)
		require.Equal(t, []expiry.Lifetime{{10 * time.Second, 7 * time.Second, 42}, {0, 0, 42}}, all)
	})
}

func TestOnlyTheLeaderOfAReadyTermAnswers(t *testing.T) {
	unreachable := errors.New("unreachable")
	for name, c := range map[string]struct {
		change func(n *node)
		err    error
	}{
		"another node leads":     {func(n *node) { n.term = 0 }, fault.ErrNotLeader},
		"no deadlines yet":       {func(n *node) { n.term = 8 }, fault.ErrNotLeader},
		"demoted":                {func(n *node) { n.e.Demote() }, fault.ErrNotLeader},
		"demoted, another leads": {func(n *node) { n.term = 0; n.e.Demote() }, fault.ErrNotLeader},
		"cannot confirm":         {func(n *node) { n.err = unreachable }, unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T, n *node) {
				n.lead(7)
				n.grant(1, 10*time.Second)
				time.Sleep(6 * time.Second)
				c.change(n)
				_, err := n.e.Renew(t.Context(), []int64{1})
				require.ErrorIs(t, err, c.err)
				_, err = n.e.TimeToLive(t.Context(), []int64{1})
				require.ErrorIs(t, err, c.err)
			})
		})
	}
}
