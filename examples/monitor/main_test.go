// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// The demonstration checks itself. Here it runs in virtual time.
func TestDemo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.NoError(t, demo(t.Context()))
	})
}
