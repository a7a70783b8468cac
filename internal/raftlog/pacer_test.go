// SPDX-License-Identifier: Apache-2.0

package raftlog

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPacerPausesInProportion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hurry := false
		p := newPacer(func() bool { return hurry })
		paused := func(work time.Duration) time.Duration {
			time.Sleep(work)
			begin := time.Now()
			p.pause()
			return time.Since(begin)
		}
		require.Zero(t, paused(workSlice/2), "too little work")
		require.Equal(t, restFactor*workSlice, paused(workSlice/2), "together it is enough")
		require.Equal(t, restFactor*time.Millisecond, paused(time.Millisecond))
		require.Equal(t, longestRest, paused(time.Hour))
		hurry = true
		require.Zero(t, paused(time.Second))
		hurry = false
		require.Zero(t, paused(workSlice/2), "the work before a pause that was skipped counts no longer")
	})
}
