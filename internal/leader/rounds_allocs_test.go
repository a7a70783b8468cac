// SPDX-License-Identifier: Apache-2.0

//go:build !race

package leader

import (
	"context"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A question has a share in the memory of its round, and none of its own.
func TestQuestionsAllocateTogether(t *testing.T) {
	const callers, calls = 100, 200
	r := NewRounds(newNode(t, 1), func(_ context.Context, questions []int) ([]int, error) { return questions, nil }, nil)
	all := func() {
		var running sync.WaitGroup
		for i := range callers {
			running.Go(func() {
				for range calls {
					_, _ = r.Ask(context.Background(), i)
				}
			})
		}
		running.Wait()
	}
	all()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	all()
	runtime.ReadMemStats(&after)
	per := float64(after.Mallocs-before.Mallocs) / (callers * calls)
	t.Logf("%.2f allocations a question", per)
	require.LessOrEqual(t, per, 1.5)
}
