// SPDX-License-Identifier: Apache-2.0

package usercode_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/usercode"
)

func TestCallsReturnErrorsAndPanics(t *testing.T) {
	c := &usercode.Calls{Name: "the function"}
	failed := errors.New("failed")
	require.ErrorIs(t, c.Do(t.Context(), func() error { return failed }), failed)
	require.NoError(t, c.Do(t.Context(), func() error { return nil }))
	require.EqualError(t, c.Do(t.Context(), func() error { panic("x") }), "coterie: the function has panicked: x")
	require.EqualError(t, c.Do(t.Context(), func() error { runtime.Goexit(); return nil }), "coterie: the function has ended its goroutine")
}

func TestCallsLeftBehindAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := &usercode.Calls{Name: "the function"}, make(chan struct{})
		hang := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return c.Do(ctx, func() error { <-gate; return nil })
		}
		for range 64 {
			require.ErrorIs(t, hang(), context.DeadlineExceeded)
		}
		begin := time.Now()
		require.EqualError(t, hang(), "coterie: the function: 64 earlier calls have not returned")
		require.Zero(t, time.Since(begin))
		close(gate)
		synctest.Wait()
		require.NoError(t, hang())
	})
}
