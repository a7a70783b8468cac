// SPDX-License-Identifier: Apache-2.0

// The race detector drops values of sync.Pools.
//go:build !race

package rpc

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// The buffer for the beginning of a large payload is used again.
func TestLargePayloadIsOneAllocation(t *testing.T) {
	payload := bytes.Repeat([]byte("x"), 2*firstRead)
	r := bytes.NewReader(payload)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		r.Reset(payload)
		got, err := readPayload(r, len(payload))
		if err != nil || !bytes.Equal(got, payload) {
			t.Error(len(got), err)
		}
	}), 1.0)
}
