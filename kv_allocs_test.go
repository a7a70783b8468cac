// SPDX-License-Identifier: Apache-2.0

// With the race detector a pool forgets objects at random.
//go:build !race

package coterie_test

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
)

func TestAllocationsOfALocalGet(t *testing.T) {
	n, err := coterie.Open(t.Context(), coterie.Config{InMemory: true, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer n.Close()
	require.NoError(t, n.Ready(t.Context()))
	_, err = n.Put(t.Context(), "key", "value")
	require.NoError(t, err)
	local := []coterie.GetOption{coterie.WithSerializable()}
	// The options, the operation, and the response with its key and value.
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() {
		r, err := n.Get(t.Context(), "key", local...)
		if err != nil || len(r.KVs) != 1 || r.KVs[0].Value != "value" || r.Count != 1 {
			t.Errorf("a Get returned %v, %v", r, err)
		}
	}), 3.0)
}
