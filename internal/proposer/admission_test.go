// SPDX-License-Identifier: Apache-2.0

package proposer

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/fault"
)

// overloaded checks that a call has failed because of a limit.
func (o *outcome) overloaded(t *testing.T, field string, limit, actual int64) {
	t.Helper()
	o.fails(t, fault.ErrOverloaded)
	var exceeded *fault.LimitError
	require.ErrorAs(t, o.err, &exceeded)
	require.Equal(t, []any{field, limit, actual}, []any{exceeded.Field, exceeded.Limit, exceeded.Actual})
}

func TestPendingCallsAreBounded(t *testing.T) {
	bubble(t, Config{MaxCalls: 32, MaxBytes: 1 << 20}, func(t *testing.T, n *node) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 32 {
			n.doSize(ctx, "k", 10, false).waits(t)
		}
		n.doSize(ctx, "k", 10, false).overloaded(t, "MaxPendingCalls", 32, 33)
		for range 2 { // a sixteenth
			n.doSize(ctx, "k", 10, true).waits(t)
		}
		n.doSize(ctx, "k", 10, true).overloaded(t, "MaxPendingCalls", 32, 35)
		calls, bytes := n.p.Pending()
		require.Equal(t, []int64{34, 340}, []int64{calls, bytes}, "calls that were not admitted do not count")
		time.Sleep(time.Second)
		synctest.Wait()
		calls, bytes = n.p.Pending()
		require.Equal(t, []int64{0, 0}, []int64{calls, bytes})
		n.doSize(t.Context(), "k", 10, false).waits(t)
	})
}

func TestFewestCallsKeepAPlaceForDeletions(t *testing.T) {
	bubble(t, Config{MaxCalls: 1, MaxBytes: 1 << 20}, func(t *testing.T, n *node) {
		n.doSize(t.Context(), "k", 10, false).waits(t)
		n.doSize(t.Context(), "k", 10, true).waits(t)
		n.doSize(t.Context(), "k", 10, true).overloaded(t, "MaxPendingCalls", 1, 3)
	})
}

func TestPendingBytesAreBounded(t *testing.T) {
	bubble(t, Config{MaxCalls: 100, MaxBytes: 1600}, func(t *testing.T, n *node) {
		for range 2 {
			n.doSize(t.Context(), "k", 800, false).waits(t)
		}
		n.doSize(t.Context(), "k", 1, false).overloaded(t, "MaxPendingBytes", 1600, 1601)
		for range 4 { // a sixteenth
			n.doSize(t.Context(), "k", 25, true).waits(t)
		}
		n.doSize(t.Context(), "k", 25, true).overloaded(t, "MaxPendingBytes", 1600, 1725)
		calls, bytes := n.p.Pending()
		require.Equal(t, []int64{6, 1700}, []int64{calls, bytes})
	})
}

func TestBytesKeepSpaceForALargeDeletion(t *testing.T) {
	bubble(t, Config{MaxCalls: 100, MaxBytes: 1600}, func(t *testing.T, n *node) {
		n.doSize(t.Context(), "k", 1600, false).waits(t)
		n.doSize(t.Context(), "k", 500, true).waits(t)
		n.doSize(t.Context(), "k", 500, true).overloaded(t, "MaxPendingBytes", 1600, 2600)
	})
}
