// SPDX-License-Identifier: Apache-2.0

package datadir_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
)

// The term may be later afterwards.
func TestInterruptedRecoveryLeavesTheOldState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var before datadir.Inspection
		raised := 0
		vfstest.UntilDone(t, func() (*site, *vfs.Memory) {
			s, _ := longRun(t)
			in, err := s.inspect(t)
			require.NoError(t, err)
			before = in
			return s, s.disk
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
