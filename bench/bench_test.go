// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if isServer() {
		os.Exit(runServer())
	}
	os.Exit(m.Run())
}

func TestRowsCheckTheirResults(t *testing.T) {
	p := plan{rounds: 1, round: 50 * time.Millisecond, scale: tiny, dir: t.TempDir()}
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			result, err := p.run(t.Context(), r)
			require.NoError(t, err)
			for _, s := range result.Systems {
				require.NotZero(t, s.Rounds[0].Ops, s.Name)
			}
		})
	}
}
