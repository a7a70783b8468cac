// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if isChild() {
		os.Exit(runChild())
	}
	os.Exit(m.Run())
}

func TestRowsCheckTheirResults(t *testing.T) {
	p := plan{rounds: 1, round: 30 * time.Millisecond, scale: tiny, dir: t.TempDir()}
	type outcome struct {
		result
		err error
	}
	outcomes := map[string]chan outcome{}
	turns := make(chan struct{}, 8) // rows spend most of their time in elections, so more of them than CPUs run at once
	var tested []row
	for _, r := range rows() {
		if strings.HasPrefix(r.name, "rival/") {
			continue // its program would have to be built
		}
		require.NotContains(t, outcomes, r.name)
		done := make(chan outcome, 1)
		tested, outcomes[r.name] = append(tested, r), done
		go func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			res, err := p.run(t.Context(), r)
			done <- outcome{res, err}
		}()
	}
	for _, r := range tested {
		t.Run(r.name, func(t *testing.T) {
			o := <-outcomes[r.name]
			require.NoError(t, o.err)
			for _, s := range o.Systems {
				require.NotZero(t, s.Rounds[0].Ops, s.Name)
			}
			require.NotEmpty(t, o.verdicts())
		})
	}
}

func TestRowsNameTheSizesOfTheScale(t *testing.T) {
	for scale, want := range map[*scale]string{&full: "50 standbys", &quick: "12 standbys"} {
		for _, r := range rows() {
			r = r.at(*scale)
			require.NotContains(t, r.about, "{")
			if r.name == "local/standbys" {
				require.Contains(t, r.about, want)
				require.Equal(t, want, r.on[1].label)
			}
		}
	}
	require.Equal(t, []string{"1000", "50,000", "200,000", "1 M"}, []string{count(1000), count(50_000), count(200_000), count(1e6)})
}

func TestCurvesRunAtTheirFirstSize(t *testing.T) {
	p := plan{rounds: 1, round: 30 * time.Millisecond, scale: tiny, dir: t.TempDir()}
	names := map[string]bool{}
	for _, c := range curves {
		require.False(t, names[c.name], c.name)
		names[c.name] = true
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.sizes, c.on = c.sizes[:1], []contender{onCoterie}
			g, err := p.growOne(t.Context(), c, io.Discard)
			require.NoError(t, err)
			require.Len(t, g.Series[0].Points, 1)
			for q, v := range g.Series[0].Points[0].Values {
				require.Positive(t, v, q)
			}
		})
	}
}
