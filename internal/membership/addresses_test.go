// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAddressesTakeTurns(t *testing.T) {
	var a Addresses
	require.Empty(t, a.Find(1))
	a.Suggest(1, "config")
	a.Suggest(1, "log")
	a.Learn(1, "member")
	a.Suggest(1, "config") // known already
	require.Equal(t, []string{"member", "config", "log"}, a.Of(1))
	a.Failed(1, "log") // not the first
	require.Equal(t, "member", a.Find(1))
	a.Failed(1, "member")
	require.Equal(t, []string{"config", "log", "member"}, a.Of(1))
	a.Learn(1, "member")
	require.Equal(t, []string{"member", "config", "log"}, a.Of(1))
	a.Learn(2, "other")
	require.ElementsMatch(t, []string{"member", "config", "log", "other"}, a.All())
}

func TestAddressesAreBounded(t *testing.T) {
	var a Addresses
	for _, addr := range []string{"a", "b", "c", "d", "e"} {
		a.Learn(1, addr)
	}
	require.Equal(t, []string{"e", "d", "c", "b"}, a.Of(1))
	a.Suggest(1, "f")
	require.Equal(t, []string{"e", "d", "c", "f"}, a.Of(1))
	a.Learn(1, "")
	require.Equal(t, []string{"e", "d", "c", "f"}, a.Of(1))
}
