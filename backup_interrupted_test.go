// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"io/fs"
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

func TestInterruptedRestoreIsRepeated(t *testing.T) {
	b := smallBackup(t)
	synctest.Test(t, func(t *testing.T) {
		unfinished := 0
		untilDone(t, func() *site { return sites(1)[0] }, func(ctx context.Context, s *site) error {
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
