// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVersionsThatAreCounted(t *testing.T) {
	for _, v := range []string{"3.7", "3.0", "3.7.3", "3.5.21", "3.4.0"} {
		require.True(t, isRelease(v), v)
	}
	for _, v := range []string{"", "3", "3.", "3.7.", "3.10", "4.0", "3.7.100", "3.7.03", "3.7.3-rc.0", "3.-1", "3.7.3.1", "v3.7", "unknown"} {
		require.False(t, isRelease(v), v)
	}
}
