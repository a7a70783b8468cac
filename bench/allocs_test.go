// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/bench/harness"
)

// TestAllocationsStayBelowCeilings counts the allocations of coterie with all three members, and of the callers: one for
// the key of a put. The ceilings are above the figures of the day on which they were set, so that they find a path that
// became longer. Timing has an influence, because calls that come together share work.
func TestAllocationsStayBelowCeilings(t *testing.T) {
	for name, c := range map[string]struct {
		load    harness.Load
		ceiling float64
	}{
		"put":              {harness.Load{Work: "put", Callers: 1000, Ops: 50_000}, 10},
		"get":              {harness.Load{Work: "get", Callers: 1000, Ops: 50_000, Keys: 100}, 2},
		"get/serializable": {harness.Load{Work: "get", Callers: 1, Ops: 50_000, Keys: 100, Local: true}, 2},
		"watch/event":      {harness.Load{Work: "fanout", Watchers: 1000}, 0.5},
		"lease/keepalive":  {harness.Load{Work: "keepalive", Callers: 100, Ops: 20_000, Leases: 100}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			setup := onCoterie.setup
			setup.Dir = t.TempDir()
			sys, err := openCoterie(t.Context(), setup)
			require.NoError(t, err)
			defer func() { require.NoError(t, sys.Close()) }()
			job, err := harness.Prepare(t.Context(), sys, c.load)
			require.NoError(t, err)
			defer func() { require.NoError(t, job.Close()) }()
			var s harness.Sample
			for range 2 { // the first one is a warm-up
				s, err = job.Run(t.Context(), quickRound, harness.OwnUsage)
				require.NoError(t, err)
			}
			t.Logf("%.2f allocations and %.0f bytes an operation", allocs.of(s), perOp(s, float64(s.Server.Bytes)))
			require.Less(t, allocs.of(s), c.ceiling)
		})
	}
}
