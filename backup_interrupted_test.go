// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"io/fs"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/datadir"
	"github.com/coterie-kv/coterie/internal/vfs"
	"github.com/coterie-kv/coterie/internal/vfs/vfstest"
)

func TestInterruptedRestoreIsRepeated(t *testing.T) {
	b := smallBackup(t)
	synctest.Test(t, func(t *testing.T) {
		unfinished := 0
		vfstest.UntilDone(t, func() (*site, *vfs.Memory) {
			s := sites(1)[0]
			return s, s.disk
		}, func(ctx context.Context, s *site) error {
			return coterie.RestoreBackup(ctx, bytes.NewReader(b), s.Config)
		}, func(s *site) {
			if in, err := datadir.Inspect(on(t, s.disk), s.Dir); err != nil {
				require.ErrorIs(t, err, fs.ErrNotExist)
			} else {
				require.True(t, in.RestoreUnfinished)
				unfinished++
			}
			require.NoError(t, s.restore(t, b))
			whole(t, s)
		})
		require.NotZero(t, unfinished)
	})
}
