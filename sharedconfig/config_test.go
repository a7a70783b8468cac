// SPDX-License-Identifier: Apache-2.0

package sharedconfig_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/sharedconfig"
)

func TestInvalidConfigsAreRejected(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		for name, cfg := range map[string]sharedconfig.Config[int]{
			"no key":             {},
			"the same key twice": {Keys: []string{"a", "b", "a"}},
			"half a codec":       {Keys: []string{"a"}, Decode: strconv.Atoi},
			"layers of no JSON": {
				Keys: []string{"a", "b"}, Decode: strconv.Atoi,
				Encode: func(n int) (string, error) { return strconv.Itoa(n), nil },
			},
		} {
			_, err := sharedconfig.Open(t.Context(), c.Node(0), cfg)
			require.ErrorIs(t, err, coterie.ErrInvalidOption, name)
		}
		_, err := sharedconfig.Open(t.Context(), c.Node(0), sharedconfig.Config[int]{Keys: []string{""}})
		require.ErrorIs(t, err, coterie.ErrEmptyKey)
	})
}
