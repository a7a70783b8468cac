// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// refused checks that Recover returns an error and changes nothing.
func (s *site) refused(t testing.TB, want error, survivors ...datadir.Inspection) error {
	t.Helper()
	changes := s.disk.Changes()
	_, err := s.recover(t, survivors...)
	require.ErrorIs(t, err, want)
	require.Equal(t, changes, s.disk.Changes())
	return err
}

func TestRecoverRefusesDirectoryWithNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sites(1)[0]
		s.refused(t, fs.ErrNotExist)
		require.NoError(t, s.disk.Mount().MkdirAll(s.Dir))
		s.refused(t, fs.ErrNotExist)
		s.elsewhere(t)
		s.refused(t, fs.ErrNotExist)

		fresh := sites(3)[0]
		opened(t, []*site{fresh}, func([]*coterie.Node) { time.Sleep(time.Minute) })
		fresh.refused(t, datadir.ErrNothingToRecover)

		joiner := sites(1)[0]
		joiner.Founders, joiner.Join = nil, []string{"nowhere:1"}
		opened(t, []*site{joiner}, func([]*coterie.Node) { time.Sleep(time.Minute) })
		joiner.refused(t, datadir.ErrNothingToRecover)

		unfinished := sites(1)[0]
		unfinished.disk.FreezeAfter(8)
		require.Error(t, unfinished.restore(t, smallBackup(t)))
		unfinished.disk.Kill()
		unfinished.refused(t, coterie.ErrRestoreUnfinished)

		restored := sites(3)[0]
		require.NoError(t, restored.restore(t, smallBackup(t)))
		restored.refused(t, datadir.ErrNothingToRecover)
	})
}

func TestRecoverRefusesDirectoryInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := longRun(t)
		n, err := coterie.Open(on(t, s.disk), s.Config)
		require.NoError(t, err)
		_, err = datadir.Recover(vfs.With(t.Context(), s.disk.Mount()), s.Dir)
		require.ErrorIs(t, err, coterie.ErrDirInUse)
		require.NoError(t, n.Close())
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(on(t, s.disk))
		cancel(enough)
		_, err = datadir.Recover(ctx, s.Dir)
		require.ErrorIs(t, err, enough)
	})
}

func TestRecoverRefusesDamagedDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := longRun(t)
		for _, part := range []string{"/identity", ".snap", ".log"} {
			for name, size := range s.files(t, part) {
				require.True(t, s.disk.Damage(name, size/2))
				require.ErrorContains(t, s.refused(t, coterie.ErrCorrupt), name)
				require.True(t, s.disk.Damage(name, size/2), "the second flip repairs it")
			}
		}
		_, err := s.recover(t)
		require.NoError(t, err)
	})
}

func TestRecoverRefusesDirectoryThatIsBehind(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		behind := c.Index(c.Follower())
		before := put(t, c.Leader(), "k", "before")
		c.WaitRevision(before.Revision)
		c.Pause(behind)
		put(t, c.Leader(), "k", "acknowledged")
		down(c, 0, 1, 2)
		others := []int{0, 1, 2}
		others = append(others[:behind], others[behind+1:]...)
		found, newest := inspected(t, c, others...)
		ahead := newest[1]
		_, err := c.Recover(behind, found...)
		var refused *datadir.BehindError
		require.ErrorAs(t, err, &refused)
		in, err := c.Inspect(others[0])
		require.NoError(t, err)
		require.Contains(t, []coterie.MemberID{found[0].Member, found[1].Member}, refused.Member)
		require.ErrorContains(t, refused, refused.Member.String())
		require.Equal(t, in.LastTerm, refused.Term)

		r, err := c.Recover(ahead, found...)
		require.NoError(t, err)
		require.True(t, r.NothingLost)
		require.Equal(t, 2, r.InspectedVoters)
		c.Restart(ahead)
		require.Equal(t, "acknowledged", get(t, c.Node(ahead), "k").KVs[0].Value)

		// Without the other Inspections the directory is accepted, and the Recovery says that writes may be lost.
		r, err = c.Recover(behind)
		require.NoError(t, err)
		require.False(t, r.NothingLost)
		require.Equal(t, before.Revision, r.Revision)
		require.Contains(t, r.String(), "lost: possibly acknowledged writes")
		c.Wipe(ahead) // or there are two clusters
		c.Restart(behind)
		require.Equal(t, "before", get(t, c.Node(behind), "k").KVs[0].Value)
	})
}

func TestRecoverRefusesSurvivorOfAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := longRun(t)
		in, err := s.inspect(t)
		require.NoError(t, err)
		other := in
		other.ClusterID++
		s.refused(t, coterie.ErrClusterMismatch, in, other)
		other = in
		other.Epoch++
		other.DurableIndex++
		s.refused(t, coterie.ErrClusterMismatch, other)
		s.refused(t, coterie.ErrClusterMismatch, datadir.Inspection{})
		other.Epoch = 0 // the survivor has not learnt of the epoch
		s.refused(t, datadir.ErrBehind, other)
		_, err = s.recover(t, in)
		require.NoError(t, err)
		s.refused(t, coterie.ErrClusterMismatch, in)
	})
}

// A removed node may not have applied its own removal, and its directory is then recovered like any other that
// is behind. The test repeats until two nodes have applied it.
func TestRecoverRefusesDirectoryOfRemovedMember(t *testing.T) {
	heard := 0
	for round := 0; heard < 2; round++ {
		require.Less(t, round, 200)
		coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
			removed := c.Leader()
			i := c.Index(removed)
			require.NoError(t, removed.Leave(t.Context()))
			c.Stop(i)
			in, err := c.Inspect(i)
			require.NoError(t, err)
			_, err = c.Recover(i)
			if slices.ContainsFunc(in.Members, func(m datadir.Member) bool { return m.ID == removed.ID() }) {
				require.NoError(t, err)
				return
			}
			heard++
			require.ErrorIs(t, err, coterie.ErrMemberNotFound)
			again, err := c.Inspect(i)
			require.NoError(t, err)
			require.Equal(t, in, again)
		})
	}
}
