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

// A result is kept until its proposer no longer waits for it, which can be never. It must not keep later results, except a few
// without data.
func TestKeptResultKeepsNoLaterResults(t *testing.T) {
	putPrev := command.Op{Put: &command.Put{Key: "key", Value: "value", PrevKV: true}}
	deletePrev := command.Op{Delete: &command.Delete{Key: "key", PrevKV: true}}
	never := []command.Compare{{Key: "key", Target: command.ModRevision, Op: command.Less}}
	txn := func(cmps []command.Compare, then, els []command.Op) command.Op {
		return command.Op{Txn: &command.Txn{Compares: cmps, Then: then, Else: els}}
	}
	for _, op := range []command.Op{
		putPrev, deletePrev, txn(nil, []command.Op{putPrev}, nil), txn(never, nil, []command.Op{deletePrev}),
		txn(nil, []command.Op{txn(nil, []command.Op{putPrev}, nil)}, nil),
		txn(nil, []command.Op{{Get: &command.Get{Key: "key"}}}, nil),
	} {
		require.True(t, collected(t, put("key", "value"), op, 1), "%+v", op)
	}
	var puts []command.Op
	for len(puts) <= resultsAtOnce {
		puts = append(puts, put(fmt.Sprintf("key-%d", len(puts)), "value"))
		for _, op := range []command.Op{txn(nil, puts, nil), txn(nil, []command.Op{put("key", "value"), txn(nil, puts, nil)}, nil)} {
			require.True(t, collected(t, op, op, 2*resultsAtOnce), "%d puts", len(puts))
		}
	}
}

// collected reports whether the middle one of n results of an operation is collected, although the result of an operation before
// them is kept.
func collected(t *testing.T, first, op command.Op, n uint64) bool {
	s := New()
	var j journal
	require.NoError(t, s.Apply(1, 1, entry(register(1), register(2)), &j))
	p := proposal(1, 1, 1, first)
	s.propose(2, 1, &p, &j)
	var middle weak.Pointer[command.Result]
	for seq := range n + 1 {
		p := proposal(2, seq+1, seq+1, op)
		s.propose(2, 1, &p, &j)
		if seq == n/2 {
			middle = weak.Make(j.answers[len(j.answers)-1].result)
		}
	}
	j = journal{}
	runtime.GC()
	defer runtime.KeepAlive(s)
	return middle.Value() == nil
}
