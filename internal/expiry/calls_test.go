// SPDX-License-Identifier: Apache-2.0

package expiry_test

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/internal/expiry"
	"github.com/coterie-kv/coterie/internal/wire"
)

func TestRequestsRoundTrip(t *testing.T) {
	for _, want := range [][]int64{nil, {1}, {3, math.MaxInt64, -1, 2}} {
		ids, single := expiry.ReadRequest(expiry.Request(want), 10)
		require.False(t, single)
		require.Equal(t, want, ids)
	}
	ids, single := expiry.ReadRequest(expiry.Request([]int64{1, 2, 3}), 2)
	require.False(t, single)
	require.Equal(t, []int64{1, 2}, ids, "at most the limit")
}

func TestRequestOfAnEarlierVersionIsRead(t *testing.T) {
	ids, single := expiry.ReadRequest(binary.AppendUvarint(nil, 300), 10)
	require.True(t, single)
	require.Equal(t, []int64{300}, ids)
	for _, malformed := range [][]byte{nil, {0x80}} {
		ids, single = expiry.ReadRequest(malformed, 10)
		require.True(t, single)
		require.Equal(t, []int64{0}, ids, "the lease that does not exist")
	}
}

func TestRenewalsRoundTrip(t *testing.T) {
	want := []expiry.Renewal{expiry.Unknown, expiry.Ending, expiry.Renewal(time.Hour)}
	b := expiry.AppendRenewals(nil, want)
	for asked := 3; asked < 5; asked++ { // a leader may answer only the first few
		got, err := expiry.ReadRenewals(b, asked)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, malformed := range [][]byte{b, nil, {0x80}} {
		_, err := expiry.ReadRenewals(malformed, 2)
		require.ErrorIs(t, err, wire.ErrMalformed)
	}
}

func TestLifetimesRoundTrip(t *testing.T) {
	want := []expiry.Lifetime{{time.Hour, time.Minute, 7}, {0, 0, 7}, {time.Second, 0, 7}}
	b := expiry.AppendLifetimes(nil, want, false)
	got, err := expiry.ReadLifetimes(b, 3)
	require.NoError(t, err)
	require.Equal(t, want, got)
	for _, malformed := range [][]byte{b, nil, {0x80}, {0x22, 1, 0x80}} {
		_, err := expiry.ReadLifetimes(malformed, 2)
		require.ErrorIs(t, err, wire.ErrMalformed)
	}
}

func TestLifetimeOfAnEarlierVersionIsRead(t *testing.T) {
	want := []expiry.Lifetime{{time.Hour, time.Minute, 7}}
	got, err := expiry.ReadLifetimes(expiry.AppendLifetimes(nil, want, true), 5)
	require.NoError(t, err)
	require.Equal(t, want, got)
}
