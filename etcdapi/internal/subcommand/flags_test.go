// SPDX-License-Identifier: Apache-2.0

package subcommand

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFlagsStandAnywhere(t *testing.T) {
	for _, args := range [][]string{
		{"--n", "1", "-b", "x", "y"}, {"x", "y", "-n=1", "--b"}, {"x", "--n=1", "y", "--b=true"}, {"--n=1", "--b", "x", "--", "y"},
	} {
		set := NewFlags("test", "")
		n, b := set.Int("n", 0, ""), set.Bool("b", false, "")
		rest, err := Parse(set, args, io.Discard)
		require.NoError(t, err)
		require.Equal(t, []string{"x", "y"}, rest)
		require.Equal(t, 1, *n)
		require.True(t, *b)
	}
	rest, err := Parse(NewFlags("test", ""), []string{"--", "--x", "--"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, []string{"--x", "--"}, rest)
}

func TestFlagsHaveVariables(t *testing.T) {
	t.Setenv("TEST_DIAL_TIMEOUT", "3s")
	set := NewFlags("test", "")
	d := set.Duration("dial-timeout", 0, "")
	require.NoError(t, FromEnvironment(set, "TEST"))
	require.Equal(t, "3s", d.String())
	_, err := Parse(set, []string{"--dial-timeout", "4s"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, "4s", d.String())
	t.Setenv("TEST_DIAL_TIMEOUT", "?")
	require.ErrorContains(t, FromEnvironment(set, "TEST"), "TEST_DIAL_TIMEOUT")
}

func TestExitCodes(t *testing.T) {
	var out bytes.Buffer
	require.Equal(t, OK, Exit(&out, nil))
	_, err := Parse(NewFlags("test", "describes"), []string{"-h"}, &out)
	require.ErrorIs(t, err, flag.ErrHelp)
	require.Contains(t, out.String(), "describes")
	require.Equal(t, OK, Exit(io.Discard, err))
	out.Reset()
	require.Equal(t, Failed, Exit(&out, errors.New("broken")))
	require.Equal(t, "Error: broken\n", out.String())
	_, err = Parse(NewFlags("test", ""), []string{"--none"}, &out)
	require.Equal(t, BadArgs, Exit(&out, err))
}
