// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func TestIDsAreHexAsText(t *testing.T) {
	require.Equal(t, "0000000000000abc", coterie.ClusterID(0xabc).String())
	require.Equal(t, "ffffffffffffffff", coterie.MemberID(1<<64-1).String())
	require.Equal(t, "fffffffffffffff9", coterie.LeaseID(-7).String())

	var cluster coterie.ClusterID
	var member coterie.MemberID
	var lease coterie.LeaseID
	require.NoError(t, cluster.UnmarshalText([]byte("abc")), "without leading zeros")
	require.NoError(t, member.UnmarshalText([]byte("ffffffffffffffff")))
	require.NoError(t, lease.UnmarshalText([]byte("fffffffffffffff9")))
	require.EqualValues(t, 0xabc, cluster)
	require.EqualValues(t, uint64(1<<64-1), member)
	require.EqualValues(t, -7, lease)
	for _, text := range []string{"", "x", "10000000000000000", "-1"} {
		require.Error(t, lease.UnmarshalText([]byte(text)), text)
	}
}
