// SPDX-License-Identifier: Apache-2.0

package throttle_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/throttle"
)

func TestThrottleAllowsOneLineOnEachSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var th throttle.Throttle
		allowed := 0
		for i := range 100 {
			if _, ok := th.Allow(fmt.Sprint(i)); ok {
				allowed++
			}
		}
		require.Equal(t, 16, allowed, "of 100 subjects")
		_, ok := th.Allow("0")
		require.False(t, ok)
		time.Sleep(throttle.Interval)
		leftOut, ok := th.Allow("0")
		require.True(t, ok)
		require.Equal(t, 85, leftOut)
	})
}

func TestTroubleLastsAfterAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tr throttle.Trouble
		for range 10 {
			require.False(t, tr.Lasts("a"))
			time.Sleep(throttle.Interval / 10)
		}
		require.True(t, tr.Lasts("a"))
		require.False(t, tr.Lasts("b"))
		time.Sleep(throttle.Interval)
		require.False(t, tr.Lasts("a"), "there was a gap")
		for i := range 1000 {
			tr.Lasts(fmt.Sprint(i))
		}
		time.Sleep(throttle.Interval - 1)
		require.False(t, tr.Lasts("999"), "it exceeds the bound")
	})
}
