// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// What a directory can count for in a recovery is told by what its node knew of its own record.
func TestAnInspectionTellsWhatADirectoryMayHaveForgotten(t *testing.T) {
	for _, c := range []struct {
		since, floor, term uint64
		forgetful          bool
	}{
		{0, 0, 0, true},  // it has promised nothing, and another one may have
		{0, 0, 1, true},  // nor has who only founded
		{0, 0, 2, false}, // who took part in an election was let in by somebody
		{5, 0, 2, false}, // it was there from the first
		{5, 2, 2, true},  // it is to get what another one may have acknowledged
	} {
		synctest.Test(t, func(t *testing.T) {
			s := sites(1)[0]
			l, err := raftlog.Open(s.disk.Mount(), s.Dir, false)
			require.NoError(t, err)
			require.NoError(t, l.Identify(raftlog.Identity{Cluster: 1, Member: 2, Incarnation: 3, Since: c.since, Floor: c.floor}))
			if c.term > 0 {
				require.NoError(t, l.Stable().SetUint64([]byte("CurrentTerm"), c.term))
			}
			if c.since > 0 && c.floor == 0 {
				require.NoError(t, l.Logs().StoreLogs([]*raft.Log{{Index: 1, Term: 1, Type: raft.LogNoop}}))
			}
			require.NoError(t, l.Close(t.Context()))
			in, err := s.inspect(t)
			require.NoError(t, err)
			require.Equal(t, c.forgetful, in.Forgetful, fmt.Sprint(c))
		})
	}
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		i := c.Join(nil)
		awaitVote(t, c.Leader(), "node4")
		c.Stop(i)
		in, err := c.Inspect(i)
		require.NoError(t, err)
		require.False(t, in.Forgetful, "it has got everything")
		c.Wipe(0)
		c.Restart(0)
		time.Sleep(time.Minute)
		c.Stop(0)
		in, err = c.Inspect(0)
		require.NoError(t, err)
		require.True(t, in.Forgetful, "it is refused")
	})
}

// A cutShort ends a context when a file of a kind is opened.
type cutShort struct {
	vfs.FS
	kind string
	end  func()
}

func (f cutShort) Open(name string) (vfs.File, error) {
	if strings.HasSuffix(name, f.kind) {
		f.end()
	}
	return f.FS.Open(name)
}

// What was not read is not damaged.
func TestAContextThatEndsWhileADirectoryIsReadIsNoDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := lived(t)
		enough := errors.New("enough")
		for _, kind := range []string{".snap", ".log", "identity", "vote"} {
			for name, read := range map[string]func(ctx context.Context) error{
				"inspect": func(ctx context.Context) error { _, err := coterie.Inspect(ctx, s.Dir); return err },
				"recover": func(ctx context.Context) error { _, err := coterie.Recover(ctx, s.Dir); return err },
			} {
				changes := s.disk.Changes()
				ctx, cancel := context.WithCancelCause(t.Context())
				err := read(vfs.With(ctx, cutShort{s.disk.Mount(), kind, func() { cancel(enough) }}))
				require.ErrorIs(t, err, enough, "%s %s", name, kind)
				require.NotErrorIs(t, err, coterie.ErrCorrupt, "%s %s", name, kind)
				require.Equal(t, changes, s.disk.Changes())
				synctest.Wait() // what was left in the background
			}
		}
	})
}
