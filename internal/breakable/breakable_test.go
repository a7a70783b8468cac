// SPDX-License-Identifier: Apache-2.0

package breakable_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/breakable"
)

func TestReaderKeepsTheErrorThatEndedIt(t *testing.T) {
	closed, closing := errors.New("closed"), make(chan struct{})
	whole := &breakable.Reader{Reader: strings.NewReader("abc"), Broken: breakable.When(closing, closed)}
	b, err := io.ReadAll(whole)
	require.NoError(t, err)
	require.Equal(t, "abc", string(b))
	require.NoError(t, whole.Err, "the end of the input is no error")

	failed := errors.New("failed")
	r := &breakable.Reader{Reader: iotest.ErrReader(failed), Broken: breakable.When(closing, closed)}
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, failed)
	require.ErrorIs(t, r.Err, failed)

	close(closing)
	_, err = whole.Read(make([]byte, 1))
	require.ErrorIs(t, err, closed)
	require.ErrorIs(t, whole.Err, closed)
}

func TestWriterFailsOnceItsContextEnds(t *testing.T) {
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	var b strings.Builder
	w := breakable.Writer{Writer: &b, Broken: breakable.By(ctx)}
	_, err := io.WriteString(w, "abc")
	require.NoError(t, err)
	cancel(enough)
	_, err = io.WriteString(w, "def")
	require.ErrorIs(t, err, enough)
	require.Equal(t, "abc", b.String())
}
