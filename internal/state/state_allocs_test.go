// SPDX-License-Identifier: Apache-2.0

//go:build !race

package state

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
)

// The bounds are per put, of batches of 1000 decoded puts that each publish a view.
func TestPutAllocatesLittleInState(t *testing.T) {
	const batch = 1000
	value := strings.Repeat("v", 256)
	for name, c := range map[string]struct {
		key   func(i int) string
		bound float64
	}{
		"new keys in ascending order": {func(i int) string { return fmt.Sprintf("key-%08d", i) }, 1.2},
		"new keys at random":          {func(i int) string { return fmt.Sprintf("key-%08d", uint32(i)*2654435761) }, 2},
		"an existing key":             {func(int) string { return "key" }, 1.3},
	} {
		t.Run(name, func(t *testing.T) {
			s := New()
			require.NoError(t, s.Apply(1, 1, entry(register(1)), nowhere{}))
			seq := uint64(0)
			puts := make([]command.Proposal, 22*batch)
			for i := range puts {
				seq++
				puts[i] = proposal(1, seq, seq-seq%batch, put(c.key(i), value))
			}
			perBatch := testing.AllocsPerRun(20, func() {
				for i := range puts[:batch] {
					s.propose(2, 1, &puts[i], nowhere{})
				}
				puts = puts[batch:]
				s.View()
			})
			t.Logf("%.3f allocations a put", perBatch/batch)
			require.LessOrEqual(t, perBatch/batch, c.bound)
		})
	}
}

// A transaction of a compare and a put allocates what a put does, and its share of the memory for results.
func TestTxnAllocatesLittleInState(t *testing.T) {
	const batch = 1000
	s := New()
	require.NoError(t, s.Apply(1, 1, entry(register(1), proposal(1, 1, 1, put("key", "value"))), nowhere{}))
	swap := &command.Txn{
		Compares: []command.Compare{{Key: "key", Target: command.ModRevision, Op: command.Greater}},
		Then:     []command.Op{put("key", "value")},
	}
	seq := uint64(1)
	perBatch := testing.AllocsPerRun(20, func() {
		lowest := seq + 1
		for range batch {
			seq++
			p := proposal(1, seq, lowest, command.Op{Txn: swap})
			s.propose(2, 1, &p, nowhere{})
		}
		s.View()
	})
	t.Logf("%.3f allocations a transaction", perBatch/batch)
	require.LessOrEqual(t, perBatch/batch, 1.5)
}

// The result of a transaction is kept until its proposer no longer waits for it, which can be never. It must not keep the
// results of later transactions.
func TestKeptResultKeepsNoLaterResults(t *testing.T) {
	for n := 1; n <= resultsAtOnce; n++ {
		s := New()
		var j journal
		require.NoError(t, s.Apply(1, 1, entry(register(1), register(2)), &j))
		nested := &command.Txn{}
		for i := range n {
			nested.Then = append(nested.Then, put(fmt.Sprintf("key-%d", i), "value"))
		}
		op := command.Op{Txn: &command.Txn{Then: []command.Op{put("key", "value"), {Txn: nested}}}}
		p := proposal(1, 1, 1, op)
		s.propose(2, 1, &p, &j)
		kept := j.answers[len(j.answers)-1].result
		var later []weak.Pointer[command.Result]
		for seq := range uint64(50) {
			p := proposal(2, seq+1, seq+1, op)
			s.propose(2, 1, &p, &j)
			later = append(later, weak.Make(j.answers[len(j.answers)-1].result))
		}
		j = journal{}
		runtime.GC()
		require.Nil(t, later[len(later)/2].Value(), "%d puts", n)
		require.Len(t, kept.Ops[1].Ops, n)
		runtime.KeepAlive(s)
	}
}
