// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// After a long outage more leases may have ended than one entry takes.
func TestManyLeasesExpireTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := open(t)
		for range 2500 {
			grant(t, n, time.Minute)
		}
		lasting := grant(t, n, time.Hour)
		require.Equal(t, 2501, n.Status().Leases)
		time.Sleep(time.Minute + time.Second)
		require.Equal(t, 1, n.Status().Leases)
		_, err := n.KeepAliveOnce(t.Context(), lasting)
		require.NoError(t, err)
	})
}
