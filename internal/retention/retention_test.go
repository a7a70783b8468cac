// SPDX-License-Identifier: Apache-2.0

package retention_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/mvcc"
	"github.com/coterie-kv/coterie/internal/retention"
)

const retry = 2 * time.Second

// A node is the host of a Retention. It keeps the compactions that were proposed; the test applies them.
type node struct {
	r       *retention.Retention
	store   *mvcc.Store
	closing chan struct{}

	mu       sync.Mutex // guards the fields below
	follows  bool
	view     *mvcc.View
	proposed []int64
}

func (n *node) Closing() <-chan struct{} { return n.closing }

func (n *node) Leader() (leader, term uint64, self bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return 1, 1, !n.follows
}

func (n *node) Store() *mvcc.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.view
}

func (n *node) Compact(rev int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.proposed = append(n.proposed, rev)
}

// put applies one batch: revisions of one key, with values of a size. With a batch for each revision, Run
// could propose compactions amid them.
func (n *node) put(revisions, size int) {
	for range revisions {
		n.store.Put("k", strings.Repeat("v", size), 0)
		n.store.Commit()
	}
	n.publish()
}

// publish makes the node apply a batch of the log.
func (n *node) publish() {
	n.mu.Lock()
	n.view = n.store.View()
	follows := n.follows
	n.mu.Unlock()
	if !follows {
		n.r.Applied(n.view)
	}
}

func (n *node) compact(t *testing.T, rev int64) {
	t.Helper()
	require.NoError(t, n.store.Compact(rev))
	n.publish()
}

func (n *node) follow(follows bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.follows = follows
}

// compactions returns the compactions that were proposed since the last call.
func (n *node) compactions() []int64 {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	all := n.proposed
	n.proposed = nil
	return all
}

// unbounded are the bounds of history without an end.
var unbounded = retention.Bounds{Revisions: -1, Bytes: -1}

// run tests the Retention of a node that leads and has an empty store.
func run(t *testing.T, bounds retention.Bounds, test func(t *testing.T, n *node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &node{store: mvcc.New(), closing: make(chan struct{})}
		n.view = n.store.View()
		n.r = retention.New(n, bounds, retry)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			n.r.Run()
		}()
		defer func() {
			close(n.closing)
			<-ended
		}()
		test(t, n)
	})
}

func TestNoBoundsKeepAllOfHistory(t *testing.T) {
	run(t, unbounded, func(t *testing.T, n *node) {
		n.put(1000, 1000)
		time.Sleep(1000 * time.Hour)
		require.Empty(t, n.compactions())
	})
}

func TestRevisionsAreBounded(t *testing.T) {
	bounds := unbounded
	bounds.Revisions = 100
	run(t, bounds, func(t *testing.T, n *node) {
		n.put(101, 1) // the newest is no history
		require.Empty(t, n.compactions())
		n.put(1, 1) // to revision 103
		require.Equal(t, []int64{13}, n.compactions(), "90 are left before it: a tenth below the bound")
		n.compact(t, 13)
		n.put(10, 1)
		require.Empty(t, n.compactions())
		n.put(1, 1)
		require.Equal(t, []int64{24}, n.compactions())
	})
}

func TestNoRevisionsKeepTheNewest(t *testing.T) {
	bounds := unbounded
	bounds.Revisions = 0
	run(t, bounds, func(t *testing.T, n *node) {
		n.put(2, 1)
		require.Equal(t, []int64{3}, n.compactions())
	})
}

// versionBytes is the size of a version that put writes with an empty value.
func versionBytes() int64 {
	s := mvcc.New()
	s.Put("k", "", 0)
	s.Commit()
	return s.View().Bytes()
}

func TestBytesOfHistoryAreBounded(t *testing.T) {
	bounds := unbounded
	bounds.Bytes = 100 * versionBytes()
	run(t, bounds, func(t *testing.T, n *node) {
		n.put(101, 0) // revision 102; 100 versions are superseded
		require.Empty(t, n.compactions())
		n.put(1, 0)
		require.Equal(t, []int64{13}, n.compactions(), "90 versions are left")
	})
}

func TestHistoryHasAShareOfTheQuota(t *testing.T) {
	for name, bytes := range map[string]int64{"alone": -1, "below a larger bound": 1 << 40} {
		t.Run(name, func(t *testing.T) {
			bounds := unbounded
			const large = 1 << 20
			bounds.Quota, bounds.Bytes = large+102*versionBytes(), bytes
			run(t, bounds, func(t *testing.T, n *node) {
				n.store.Put("p", strings.Repeat("v", large), 0)
				n.store.Commit()
				n.put(91, 0) // two keys exist, 90 of the 100 versions left may be history
				require.Empty(t, n.compactions())
				n.put(1, 0) // to revision 94
				require.Equal(t, []int64{13}, n.compactions(), "81 versions are left")
			})
		})
	}
}

func TestDeletingMakesSpaceInTheQuota(t *testing.T) {
	bounds := unbounded
	bounds.Quota = 20_000
	run(t, bounds, func(t *testing.T, n *node) {
		n.put(1, 19_000)
		require.Empty(t, n.compactions(), "no history")
		n.store.Delete("k", "")
		n.store.Commit()
		n.publish()
		require.Equal(t, []int64{3}, n.compactions())
		n.compact(t, 3)
		require.Less(t, n.store.View().Bytes(), int64(1000))
	})
}

func TestSmallerBoundOfBytesHolds(t *testing.T) {
	bounds := unbounded
	bounds.Bytes, bounds.Quota = 10*versionBytes(), 1<<40
	run(t, bounds, func(t *testing.T, n *node) {
		n.put(12, 0)
		require.Equal(t, []int64{4}, n.compactions())
	})
}

func TestAgeIsBounded(t *testing.T) {
	bounds := unbounded
	bounds.Age = 10 * time.Minute
	run(t, bounds, func(t *testing.T, n *node) {
		time.Sleep(time.Second)
		for range 10 { // revisions 2 to 11, in the minutes 0 to 9
			n.put(1, 1)
			time.Sleep(time.Minute)
		}
		require.Empty(t, n.compactions())
		time.Sleep(time.Minute - 2*time.Second)
		require.Empty(t, n.compactions(), "revision 2 was the newest at minute 1")
		time.Sleep(time.Second)
		for rev := int64(2); rev <= 11; rev++ {
			require.Equal(t, []int64{rev}, n.compactions())
			n.compact(t, rev)
			time.Sleep(time.Minute)
		}
		time.Sleep(time.Hour)
		require.Empty(t, n.compactions(), "the newest revision stays")
	})
}

func TestStrictestBoundDecides(t *testing.T) {
	bounds := unbounded
	bounds.Revisions, bounds.Age = 10, 10*time.Minute
	run(t, bounds, func(t *testing.T, n *node) {
		n.put(5, 1)
		time.Sleep(11 * time.Minute)
		require.Equal(t, []int64{6}, n.compactions(), "by age")
		n.put(20, 1)
		require.Equal(t, []int64{17}, n.compactions(), "by revisions")
	})
}

func TestDroppedCompactionIsProposedAgain(t *testing.T) {
	byRevisions, byAge := unbounded, unbounded
	byRevisions.Revisions = 10
	byAge.Age = 10 * time.Minute
	for name, bounds := range map[string]retention.Bounds{"by revisions": byRevisions, "by age": byAge} {
		t.Run(name, func(t *testing.T) {
			run(t, bounds, func(t *testing.T, n *node) {
				n.put(12, 1)
				time.Sleep(11 * bounds.Age / 10)
				first := n.compactions()
				require.Len(t, first, 1)
				for range 3 {
					time.Sleep(retry - 1)
					require.Empty(t, n.compactions())
					time.Sleep(time.Nanosecond)
					require.Equal(t, first, n.compactions())
				}
				n.compact(t, first[0])
				time.Sleep(time.Hour)
				require.Empty(t, n.compactions())
			})
		})
	}
}

func TestPendingCompactionIsProposedOnce(t *testing.T) {
	bounds := unbounded
	bounds.Revisions = 10
	run(t, bounds, func(t *testing.T, n *node) {
		n.put(12, 1)
		require.Equal(t, []int64{4}, n.compactions())
		n.publish()
		n.publish()
		require.Empty(t, n.compactions())
		n.put(1, 1)
		require.Equal(t, []int64{5}, n.compactions(), "a newer one need not wait")
	})
}

func TestFollowerCompactsNothing(t *testing.T) {
	bounds := unbounded
	bounds.Revisions, bounds.Age = 10, 10*time.Minute
	run(t, bounds, func(t *testing.T, n *node) {
		n.follow(true)
		n.put(5, 1)
		time.Sleep(time.Hour)
		n.put(20, 1)
		time.Sleep(time.Hour + time.Second)
		require.Empty(t, n.compactions())
		n.follow(false)
		time.Sleep(time.Minute)
		require.Equal(t, []int64{17}, n.compactions())
		n.compact(t, 17)
		time.Sleep(9 * time.Minute)
		require.Empty(t, n.compactions(), "a new leader begins to measure age")
		time.Sleep(time.Minute)
		require.Equal(t, []int64{26}, n.compactions())
	})
}
