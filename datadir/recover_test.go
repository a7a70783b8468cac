// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// A load records the writes that were answered.
type load struct {
	mu    sync.Mutex
	acked map[string]int64 // revisions by key
}

// run starts a writer on each node. It puts new keys until ctx ends or its node stops.
func (l *load) run(ctx context.Context, nodes []*coterie.Node) *sync.WaitGroup {
	var writers sync.WaitGroup
	for i, n := range nodes {
		writers.Go(func() {
			for j := 0; ctx.Err() == nil && n.Err() == nil; j++ {
				key := fmt.Sprintf("load/%d/%d", i, j)
				if r, err := n.Put(ctx, key, "v"); err == nil {
					l.mu.Lock()
					l.acked[key] = r.Revision
					l.mu.Unlock()
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	return &writers
}

// require checks that a node has all writes that were answered with a revision up to upTo.
func (l *load) require(t *testing.T, n *coterie.Node, upTo int64) {
	t.Helper()
	for key, rev := range l.acked {
		if rev > upTo {
			continue
		}
		kvs := get(t, n, key).KVs
		require.Len(t, kvs, 1, "%s was answered with revision %d", key, rev)
		require.Equal(t, rev, kvs[0].ModRevision, key)
	}
}

// inspected inspects directories, and returns the results and the order of the nodes, the newest last.
func inspected(t *testing.T, c *coterietest.Cluster, nodes ...int) (found []datadir.Inspection, order []int) {
	t.Helper()
	for _, i := range nodes {
		in, err := c.Inspect(i)
		require.NoError(t, err)
		found = append(found, in)
	}
	at := func(i int) datadir.Inspection { return found[slices.Index(nodes, i)] }
	order = slices.SortedFunc(slices.Values(nodes), func(i, j int) int {
		a, b := at(i), at(j)
		return cmp.Or(cmp.Compare(a.LastTerm, b.LastTerm), cmp.Compare(a.DurableIndex, b.DurableIndex))
	})
	return found, order
}

// within returns a context that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func down(c *coterietest.Cluster, nodes ...int) {
	for _, i := range nodes {
		c.Crash(i)
	}
}

// The whole procedure: disks are lost under load, the remaining directories are inspected, the best one is
// recovered, and the others join again, by Join or with the Founders that they had.
func TestClusterContinuesWithASurvivor(t *testing.T) {
	for _, size := range []int{3, 5} {
		for lost := size / 2; lost < size; lost++ {
			for _, join := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d of %d lost, join %v", lost, size, join), func(t *testing.T) {
					seed := rand.Uint64()
					coterietest.Run(t, size, func(t *testing.T, c *coterietest.Cluster) {
						surviveLoss(t, c, rand.New(rand.NewPCG(seed, 1)), lost, join)
					}, coterietest.WithSeed(seed), coterietest.WithConfig(func(_ int, cfg *coterie.Config) { cfg.SnapshotEntries = 200 }))
				})
			}
		}
	}
}

func surviveLoss(t *testing.T, c *coterietest.Cluster, random *rand.Rand, lost int, join bool) {
	size := len(c.Nodes())
	long, short := grant(t, c.Leader(), time.Hour), grant(t, c.Leader(), time.Minute)
	put(t, c.Leader(), "long", "v", coterie.WithLease(long))
	first := put(t, c.Leader(), "short", "v", coterie.WithLease(short))
	c.WaitRevision(first.Revision)

	l := &load{acked: map[string]int64{}}
	ctx, stop := context.WithCancel(t.Context())
	writers := l.run(ctx, c.Nodes())
	time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
	order := random.Perm(size)
	for _, i := range order {
		time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
		c.Crash(i)
	}
	stop()
	writers.Wait()
	random.Shuffle(size, func(i, j int) { order[i], order[j] = order[j], order[i] })
	gone, left := order[:lost], order[lost:]
	for _, i := range gone {
		c.Wipe(i)
	}

	found, newest := inspected(t, c, left...)
	best := newest[len(newest)-1]
	for _, in := range found {
		require.NotZero(t, in.Epoch)
		require.Len(t, in.Members, size)
		require.Equal(t, "node1", names(in.Members)[0])
	}
	whole := found[slices.Index(left, best)]
	worst := newest[0]
	if in := found[slices.Index(left, worst)]; in.LastTerm < whole.LastTerm || in.DurableIndex < whole.DurableIndex {
		_, err := c.Recover(worst, found...)
		require.ErrorIs(t, err, datadir.ErrBehind)
		var behind *datadir.BehindError
		require.ErrorAs(t, err, &behind)
		require.Greater(t, behind.Term<<32+behind.Index, in.LastTerm<<32+in.DurableIndex)
		again, err := c.Inspect(worst)
		require.NoError(t, err)
		require.Equal(t, in, again, "nothing was changed")
	}
	r, err := c.Recover(best, found...)
	require.NoError(t, err)
	t.Logf("%v", r)
	require.Equal(t, lost <= (size-1)/2, r.NothingLost)
	require.Equal(t, []int{size - lost, size}, []int{r.InspectedVoters, len(r.Voters)})
	require.Equal(t, []uint64{whole.DurableIndex, whole.LastTerm, whole.AppliedIndex}, []uint64{r.LastIndex, r.LastTerm, r.AppliedIndex})
	after, err := c.Inspect(best)
	require.NoError(t, err)
	require.Equal(t, []any{r.Epoch, r.Revision, r.LastIndex}, []any{after.Epoch, after.Revision, after.AppliedIndex})
	require.Equal(t, []string{r.Name}, names(after.Members))

	c.Restart(best)
	n := c.Node(best)
	p, err := n.Put(within(t, time.Second), "after", "v")
	require.NoError(t, err)
	require.Equal(t, r.Revision+1, p.Revision, "revisions continue")
	require.Equal(t, 1, n.Status().Voters)
	if r.NothingLost {
		l.require(t, n, p.Revision)
	}
	require.EqualValues(t, long, get(t, n, "long").KVs[0].Lease)
	watch := n.WatchChan(t.Context(), "", coterie.WithPrefix(), coterie.WithRevision(first.Revision))
	for rev := first.Revision; rev <= p.Revision; rev++ {
		require.Equal(t, rev, (<-watch).Revision, "watches continue")
	}

	for _, i := range order {
		if i == best {
			continue
		}
		c.Wipe(i)
		if join {
			c.Reconfigure(i, func(cfg *coterie.Config) { cfg.Founders, cfg.Join = nil, []string{fmt.Sprintf("node%d:1", best+1)} })
		}
		c.Restart(i)
	}
	for _, i := range order {
		ready(t, c.Node(i))
		awaitVote(t, n, fmt.Sprint("node", i+1))
		put(t, c.Node(i), "k", fmt.Sprint(i))
		require.Equal(t, n.Status().ClusterID, c.Node(i).Status().ClusterID)
	}
	require.Len(t, members(t, n), size)
	c.Crash(best) // the others are a majority
	put(t, c.Leader(), "k", "without")
	c.Restart(best)
	time.Sleep(2 * time.Minute)
	require.Empty(t, get(t, c.Node(best), "short").KVs, "leases end")
	require.Len(t, get(t, c.Node(best), "long").KVs, 1)
	sameState(t, c)
}

func names(members []datadir.Member) (all []string) {
	for _, m := range members {
		all = append(all, m.Name)
	}
	slices.Sort(all)
	return all
}

// Entries that only the leader had are kept: they may have been about to be acknowledged.
func TestRecoverKeepsTheEndOfTheLog(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		put(t, c.Leader(), "k", "acknowledged")
		time.Sleep(time.Second) // the applied index is recorded
		leader := c.Index(c.Leader())
		for i := range 3 {
			if i != leader {
				c.Pause(i)
			}
		}
		ctx := within(t, 300*time.Millisecond)
		_, err := c.Node(leader).Put(ctx, "open", "v")
		require.ErrorIs(t, err, coterie.ErrMaybeApplied)
		down(c, 0, 1, 2)
		in, err := c.Inspect(leader)
		require.NoError(t, err)
		r, err := c.Recover(leader)
		require.NoError(t, err)
		require.Equal(t, in.AppliedIndex, r.AppliedIndex)
		require.Less(t, r.AppliedIndex, r.LastIndex)
		require.Equal(t, in.Revision+1, r.Revision)
		require.Contains(t, r.String(), fmt.Sprintf("entries %d to %d", r.AppliedIndex+1, r.LastIndex))
		c.Restart(leader)
		require.Equal(t, r.Revision, get(t, c.Node(leader), "open").KVs[0].ModRevision)
	})
}

// The remaining old nodes and the recovered node refuse each other, in whatever order they start.
func TestRecoveredNodeAndOldNodesRefuseEachOther(t *testing.T) {
	for _, oldFirst := range []bool{false, true} {
		coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
			put(t, c.Leader(), "k", "v")
			time.Sleep(time.Second) // the applied index is recorded, and with it the epoch
			down(c, 0, 1, 2)
			c.Wipe(2)
			found, newest := inspected(t, c, 0, 1)
			now, old := newest[1], newest[0]
			_, err := c.Recover(now, found...)
			require.NoError(t, err)
			if oldFirst {
				c.Restart(old)
				time.Sleep(time.Minute)
			}
			c.Restart(now)
			if !oldFirst {
				time.Sleep(time.Minute)
				c.Restart(old)
			}
			require.ErrorIs(t, notReady(t, c.Node(old), time.Minute), coterie.ErrClusterMismatch)
			put(t, c.Node(now), "k", "w")
			require.Len(t, members(t, c.Node(now)), 1)
			c.Restart(2) // with the Founders that it had
			ready(t, c.Node(2))
			c.Wipe(old)
			c.Restart(old)
			ready(t, c.Node(old))
			awaitVote(t, c.Node(now), fmt.Sprint("node", old+1))
			sameState(t, c)
		})
	}
}

// If the other nodes were not lost after all, there are two clusters, and no data passes between them.
func TestMajorityThatWasNotLostIsAnotherCluster(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		r := put(t, c.Leader(), "k", "v")
		c.WaitRevision(r.Revision)
		c.Stop(0)
		_, err := c.Recover(0)
		require.NoError(t, err)
		c.Restart(0)
		require.NoError(t, c.Node(0).Ready(within(t, time.Second)))
		for range 10 {
			put(t, c.Node(0), "k", "new")
			put(t, c.Node(1), "k", "old")
			time.Sleep(10 * time.Second)
		}
		require.Equal(t, "new", get(t, c.Node(0), "k").KVs[0].Value)
		require.Equal(t, "old", get(t, c.Node(2), "k").KVs[0].Value)
		require.Equal(t, []int{1, 3}, []int{c.Node(0).Status().Voters, c.Node(1).Status().Voters})
		c.Wipe(0) // a check after the test compares all nodes
	})
}

func TestRecoverDirectoryOfNonVoter(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		i := c.Join(func(cfg *coterie.Config) { cfg.NonVoter = true })
		ready(t, c.Node(i))
		r := put(t, c.Node(i), "k", "v")
		for _, i := range []int{0, 1, 2, 3} {
			c.Crash(i)
		}
		done, err := c.Recover(i)
		require.NoError(t, err)
		require.True(t, done.WasNonVoter)
		require.False(t, done.NothingLost)
		require.Equal(t, []int{0, 3}, []int{done.InspectedVoters, len(done.Voters)})
		require.Contains(t, done.String(), "no vote before")
		c.Restart(i)
		w, err := c.Node(i).Put(within(t, time.Second), "k", "w")
		require.NoError(t, err)
		require.Equal(t, r.Revision+1, w.Revision)
		require.Equal(t, 1, c.Node(i).Status().Voters)
	})
}

func TestRecoverAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, status := longRun(t)
		epochs := map[datadir.ID]bool{}
		for round := range 5 {
			in, err := s.inspect(t)
			require.NoError(t, err)
			r, err := s.recover(t, in)
			require.NoError(t, err)
			require.True(t, r.NothingLost, "a cluster of one has nothing to lose")
			require.Equal(t, status.Revision, r.Revision)
			require.False(t, epochs[r.Epoch])
			epochs[r.Epoch] = true
			again, err := s.recover(t)
			require.NoError(t, err)
			require.Equal(t, []uint64{r.LastIndex, r.LastIndex}, []uint64{again.LastIndex, again.AppliedIndex})
			require.False(t, epochs[again.Epoch])
			n, err := coterie.Open(on(t, s.disk), s.Config)
			require.NoError(t, err)
			require.NoError(t, n.Ready(within(t, time.Second)))
			require.Equal(t, status.ClusterID, n.Status().ClusterID)
			for range 3 * round { // enough writes for a snapshot, and too few
				put(t, n, "k", "v")
			}
			status = n.Status()
			require.NoError(t, n.Check(t.Context()))
			require.NoError(t, n.Close())
		}
	})
}

// The process ends after each change that Recover makes to the disk.
func TestRecoverIsDoneCompletelyOrNotAtAll(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for name, end := range map[string]func(*vfs.Memory){
		"killed":          (*vfs.Memory).Kill,
		"crashed":         func(d *vfs.Memory) { d.Crash(nil) },
		"crashed, random": func(d *vfs.Memory) { d.Crash(random) },
	} {
		synctest.Test(t, func(t *testing.T) {
			steps, old, new := 0, 0, 0
			for done := false; !done; steps++ {
				require.Less(t, steps, 100)
				all := sites(3)
				for _, s := range all {
					s.SnapshotEntries = 8
				}
				var rev int64
				opened(t, all, func(nodes []*coterie.Node) {
					readyAll(t, nodes)
					for range 20 {
						rev = put(t, nodes[0], "k", "v").Revision
					}
				})
				s := all[0]
				before, err := s.inspect(t)
				require.NoError(t, err)
				s.disk.FreezeAfter(steps)
				r, err := s.recover(t)
				done = err == nil
				end(s.disk)
				after, err := s.inspect(t)
				require.NoError(t, err, "%s after %d", name, steps)
				if len(after.Members) == 3 {
					require.False(t, done, "%s after %d: it was done, and its result is gone", name, steps)
					require.Equal(t, before.Epoch, after.Epoch)
					require.Equal(t, []uint64{before.FirstIndex, before.LastIndex, before.LastTerm}, []uint64{after.FirstIndex, after.LastIndex, after.LastTerm})
					old++
					// The directory still belongs to the old member.
					opened(t, all, func(nodes []*coterie.Node) {
						readyAll(t, nodes)
						require.Equal(t, "v", get(t, nodes[0], "k").KVs[0].Value)
						require.Equal(t, 3, nodes[0].Status().Voters)
					})
				} else {
					require.Len(t, after.Members, 1)
					require.NotEqual(t, before.Epoch, after.Epoch)
					new++
				}
				r, err = s.recover(t)
				require.NoError(t, err, "%s after %d", name, steps)
				require.GreaterOrEqual(t, r.Revision, rev)
				opened(t, all[:1], func(nodes []*coterie.Node) {
					require.NoError(t, nodes[0].Ready(within(t, time.Second)))
					require.Equal(t, "v", get(t, nodes[0], "k").KVs[0].Value)
					put(t, nodes[0], "k", "w")
				})
				opened(t, all[:1], func(nodes []*coterie.Node) { require.Equal(t, "w", get(t, nodes[0], "k").KVs[0].Value) })
			}
			t.Logf("%s: of %d steps %d leave the old state, %d the new one", name, steps, old, new)
			require.Greater(t, old, 3)
			require.NotZero(t, new)
		})
	}
}

func TestRecoverRealDirectory(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	c := coterietest.NewCluster(t, 3, coterietest.WithTCP(), coterietest.WithConfig(func(i int, cfg *coterie.Config) { cfg.Dir = dirs[i] }))
	p := put(t, c.Node(1), "k", "v")
	c.WaitRevision(p.Revision)
	for i := range 3 {
		c.Stop(i)
	}
	require.NoError(t, os.RemoveAll(dirs[1]))
	require.NoError(t, os.RemoveAll(dirs[2]))
	require.NoError(t, os.Remove(filepath.Join(dirs[0], "lock"))) // a copy may have no lock file
	r, err := datadir.Recover(t.Context(), dirs[0])
	require.NoError(t, err)
	require.Equal(t, p.Revision, r.Revision)
	for i := range 3 {
		c.Restart(i)
		ready(t, c.Node(i))
	}
	require.Equal(t, "v", get(t, c.Node(2), "k").KVs[0].Value)
	require.EqualValues(t, r.ClusterID, c.Node(2).Status().ClusterID)
}
