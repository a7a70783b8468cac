// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// untilDone calls do with contexts that end later each time, on a slow disk, until it succeeds. After each call
// that ended early, it calls undone.
func untilDone(t *testing.T, site func() *site, do func(ctx context.Context, s *site) error, undone func(s *site)) {
	t.Helper()
	ended := 0
	for limit := time.Duration(0); ; limit += 5 * time.Millisecond {
		s := site()
		s.disk.Delay(10 * time.Millisecond)
		ctx, cancel := context.WithTimeout(vfs.With(t.Context(), s.disk.Mount()), limit)
		err := do(ctx, s)
		cancel()
		s.disk.Delay(0)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		undone(s)
		ended++
	}
	require.Greater(t, ended, 3)
	require.Less(t, ended, 100)
}

// The term may be later afterwards.
func TestInterruptedRecoveryLeavesTheOldState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var before datadir.Inspection
		raised := 0
		untilDone(t, func() *site {
			s, _ := longRun(t)
			in, err := s.inspect(t)
			require.NoError(t, err)
			before = in
			return s
		}, func(ctx context.Context, s *site) error {
			_, err := datadir.Recover(ctx, s.Dir)
			return err
		}, func(s *site) {
			after, err := s.inspect(t)
			require.NoError(t, err)
			if after.Term > before.Term {
				raised++
			}
			after.Term = before.Term
			require.Equal(t, before, after)
			opened(t, []*site{s}, func(nodes []*coterie.Node) {
				readyAll(t, nodes)
				require.Equal(t, before.Revision, nodes[0].Status().Revision)
			})
		})
		require.NotZero(t, raised)
	})
}
