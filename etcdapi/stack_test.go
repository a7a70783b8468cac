// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"io"
	"net"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The connections are idle: not even their clients have goroutines.
func TestStacksOfCallsBeginLarge(t *testing.T) {
	addr := serve(t, open(t))
	for range 50 {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer c.Close()
		_, err = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00") // and empty SETTINGS
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		runtime.GC()
		size := []metrics.Sample{{Name: "/gc/stack/starting-size:bytes"}}
		metrics.Read(size)
		return size[0].Value.Uint64() == 8<<10
	}, 10*time.Second, 10*time.Millisecond)
}
