// SPDX-License-Identifier: Apache-2.0

package command_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/command"
	"github.com/coterie-kv/coterie/internal/wire"
)

var headFormat = wire.Format{What: "sample", Magic: "SAMPLE", Version: 1}

func head(message string) []byte {
	return command.AppendHead([]byte("before"), headFormat, func(b []byte) []byte { return append(b, message...) })[6:]
}

func TestHeadRoundTripLeavesRest(t *testing.T) {
	for _, message := range []string{"", "m", string(bytes.Repeat([]byte("long"), 1<<10))} {
		r := bytes.NewReader(append(head(message), "the rest"...))
		got, err := command.ReadHead(iotest.OneByteReader(r), headFormat)
		require.NoError(t, err)
		require.Equal(t, message, string(got))
		rest, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, "the rest", string(rest))
	}
}

func TestEveryDamageOfHeadIsFound(t *testing.T) {
	whole := head("message")
	var corrupt *command.CorruptError
	for i := range whole {
		_, err := command.ReadHead(bytes.NewReader(whole[:i]), headFormat)
		require.ErrorAs(t, err, &corrupt, "cut at %d", i)
		for _, mask := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			damaged := bytes.Clone(whole)
			damaged[i] ^= mask
			_, err := command.ReadHead(bytes.NewReader(damaged), headFormat)
			if i == len(headFormat.Magic) && damaged[i] != 0 {
				require.ErrorIs(t, err, wire.ErrFormat, "no checksum covers the version")
				continue
			}
			require.ErrorAs(t, err, &corrupt, "flipped at %d", i)
		}
	}
	broken := errors.New("broken")
	_, err := command.ReadHead(iotest.ErrReader(broken), headFormat)
	require.ErrorIs(t, err, broken)
	require.False(t, errors.As(err, &corrupt), "an error of the reader is not damage")
}
