// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVotersTakeTurns(t *testing.T) {
	voters := []MemberID{30, 10, 40, 20}
	order := func(leader MemberID) (ids [4]MemberID) {
		for _, v := range voters {
			if v != leader {
				ids[rank(v, leader, voters)] = v
			}
		}
		return ids
	}
	require.Equal(t, [4]MemberID{20, 30, 40}, order(10))
	require.Equal(t, [4]MemberID{40, 10, 20}, order(30))
	require.Equal(t, [4]MemberID{10, 20, 30}, order(40))
	require.Equal(t, [4]MemberID{10, 20, 30, 40}, order(0), "no leader was ever heard")
	require.Equal(t, [4]MemberID{30, 40, 10, 20}, order(25), "the leader was removed")
}
