// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/registry"
)

func TestIDTakenErrorRoundTripsThroughJSON(t *testing.T) {
	taken := registry.IDTakenError{Holder: instance("a"), Lease: 7}
	b, err := json.Marshal(taken)
	require.NoError(t, err)
	require.JSONEq(t, `{"holder":{"id":"a","addr":"a:80"},"lease":"0000000000000007"}`, string(b))
	var read registry.IDTakenError
	require.NoError(t, json.Unmarshal(b, &read))
	require.Equal(t, taken, read)
}
