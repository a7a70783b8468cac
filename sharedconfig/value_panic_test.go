// SPDX-License-Identifier: Apache-2.0

package sharedconfig_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/sharedconfig"
)

// One bad document must not end every program that follows it.
func TestValidatePanicRejectsDocument(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(0)
		v := open(t, n, sharedconfig.Config[int]{Keys: []string{"k"}, Validate: func(v int) error {
			if v == 13 {
				panic("unlucky")
			}
			return nil
		}})
		put(t, n, "k", "13")
		synctest.Wait()
		var rejected *sharedconfig.RejectedError
		require.ErrorAs(t, v.Current().Err, &rejected)
		require.ErrorContains(t, rejected, "panic: unlucky")
		put(t, n, "k", "14")
		synctest.Wait()
		require.NoError(t, v.Current().Err)
		require.Equal(t, 14, v.Current().Value)
	})
}
