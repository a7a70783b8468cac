// SPDX-License-Identifier: Apache-2.0

package raftlogtest

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/raftlog"
	"github.com/coterie-kv/coterie/internal/storage"
	"github.com/coterie-kv/coterie/internal/vfs"
)

// The environment of a process that Kill kills.
const (
	victimDir  = "COTERIE_VICTIM_DIR"
	victimSeed = "COTERIE_VICTIM_SEED"
)

// unreported is the number of changes that a process makes before it waits until they are durable.
const unreported = 8

// Kill kills a number of processes, each at a random moment, that change a log in a directory of the operating system. It checks
// that everything that they reported as durable is there, and nothing but a prefix of their changes. The processes run
// the test that calls Kill.
func Kill(t *testing.T, format storage.Format, kills int) {
	if dir := os.Getenv(victimDir); dir != "" {
		work(t, site{format, vfs.OS{}, dir})
		return
	}
	r := random(t)
	s := site{format, vfs.OS{}, filepath.Join(t.TempDir(), "node")}
	finish(t, s.open(t))
	durable := 0
	for range kills {
		durable += killed(t, s, r)
	}
	t.Logf("%d kills, %d durable changes", kills, durable)
}

// work makes changes until the process is killed. After some of them it reports how many are durable, and the
// recorded applied index.
func work(t *testing.T, s site) {
	seed, err := strconv.ParseUint(os.Getenv(victimSeed), 10, 64)
	require.NoError(t, err)
	l := s.open(t)
	m := newModel(t, l, rand.New(rand.NewPCG(seed, 0)))
	fmt.Println("begin", span(m.logs)[0])
	reported := 0
	for made := 0; ; made++ {
		if made-reported == unreported || rand.IntN(4) == 0 {
			settle(t, l)
			fmt.Println("durable", made, l.Recorded())
			reported = made
		}
		m.next()(t, l)
	}
}

// killed lets a process change the directory, kills it, and checks the directory. It returns how many changes were
// reported as durable.
func killed(t *testing.T, s site, r *rand.Rand) (durable int) {
	t.Helper()
	l := s.open(t)
	seed := r.Uint64()
	m := newModel(t, l, rand.New(rand.NewPCG(seed, 0)))
	finish(t, l)

	begun, durable, recorded := runVictim(t, s.dir, seed, r)
	for begun > 0 && len(m.logs) > 0 && m.logs[0].Index < begun {
		m.logs = m.logs[1:] // compacted in the meantime
	}
	states := []state{m.state}
	for range durable + unreported + 1 {
		m.next()
		states = append(states, m.state)
	}

	require.Empty(t, s.read(t).Damage)
	l = s.open(t)
	defer func() { finish(t, l) }()
	found := -1
	var differences []string
	for i := durable; i < len(states) && found < 0; i++ {
		d := states[i].difference(t, l)
		if d == "" {
			found = i
		}
		differences = append(differences, d)
	}
	require.GreaterOrEqual(t, found, 0, "the log has none of the states after %d durable changes: %v", durable, differences)
	require.GreaterOrEqual(t, max(l.Recorded(), states[found].snapshot), recorded)
	require.LessOrEqual(t, l.Recorded(), states[len(states)-1].applied)
	requireVote(t, l, states[durable:])
	return durable
}

// requireVote checks that a log has the term and the vote of one of the states. Between two states a vote can have
// only its term.
func requireVote(t testing.TB, l *raftlog.Log, states []state) {
	t.Helper()
	term := l.Term()
	votedIn, by := l.Voted()
	for i, s := range states {
		between := i > 0 && s.term == term && states[i-1].votedIn == votedIn
		if s.term == term && s.votedIn == votedIn || between {
			if votedIn > 0 {
				require.Equal(t, candidate(votedIn), by)
			}
			return
		}
	}
	t.Fatalf("term %d and a vote in term %d are of no state", term, votedIn)
}

// runVictim runs a process and kills it. It returns the first entry that the process found, how many of its changes
// were durable, and the applied index that was recorded.
func runVictim(t *testing.T, dir string, seed uint64, r *rand.Rand) (begun uint64, durable int, recorded uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), victimDir+"="+dir, victimSeed+"="+strconv.FormatUint(seed, 10))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	kill := func() { _ = cmd.Process.Kill() }
	limit, moment := r.IntN(60), time.Duration(r.IntN(4000))*time.Microsecond
	if r.IntN(8) == 0 { // perhaps while it opens the log
		defer time.AfterFunc(10*moment, kill).Stop()
	}
	lines := bufio.NewScanner(out)
	for seen := 0; lines.Scan(); seen++ {
		if seen == limit {
			time.AfterFunc(moment, kill)
		}
		if _, err := fmt.Sscanf(lines.Text(), "begin %d", &begun); err == nil {
			continue
		}
		_, err := fmt.Sscanf(lines.Text(), "durable %d %d", &durable, &recorded)
		require.NoError(t, err, lines.Text())
	}
	require.NoError(t, lines.Err())
	require.ErrorContains(t, cmd.Wait(), "killed")
	require.NoError(t, ctx.Err())
	return begun, durable, recorded
}
