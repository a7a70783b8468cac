// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func TestRoleIsTextInJSON(t *testing.T) {
	for role, text := range map[coterie.Role]string{
		coterie.RoleFollower: `"follower"`, coterie.RoleCandidate: `"candidate"`,
		coterie.RoleLeader: `"leader"`, coterie.RoleClosed: `"closed"`,
	} {
		b, err := json.Marshal(role)
		require.NoError(t, err)
		require.JSONEq(t, text, string(b))
		var read coterie.Role
		require.NoError(t, json.Unmarshal(b, &read))
		require.Equal(t, role, read)
	}
	_, err := json.Marshal(coterie.Role(9))
	require.Error(t, err)
	require.Error(t, new(coterie.Role).UnmarshalText([]byte("Role(9)")))
}
