// SPDX-License-Identifier: Apache-2.0

package membership

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAttemptsSummary(t *testing.T) {
	var a Attempts
	refused := errors.New("refused")
	a.Note("a:1", ErrSilent)
	a.Note("b:1", refused)
	a.Note("c:1", ErrLeaderless)
	a.Note("c:1", errors.New("refused"))
	places := []Place{{"a:1", "a a:1"}, {"b:1", "b b:1"}, {"c:1", "c:1"}, {"d:1", "d:1"}}
	errs := a.Summary(places)
	require.Len(t, errs, 3)
	require.EqualError(t, errs[0], "a a:1: no answer in time")
	require.ErrorIs(t, errs[0], ErrSilent)
	require.EqualError(t, errs[1], "b b:1, c:1: refused")
	require.ErrorIs(t, errs[1], refused)
	require.EqualError(t, errs[2], "d:1: no answer yet")
	a.Forget()
	require.Equal(t, ErrUntried, a.Outcome("a:1"))
	require.EqualError(t, a.Summary(places)[0], "a a:1, b b:1, c:1, d:1: no answer yet")
}
