// SPDX-License-Identifier: Apache-2.0

package processtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// FreeAddr returns a loopback address that no program listens on. Until the end of the test, no other call returns it, in
// this process or another: the test reserves the number of the port with a UDP socket. The port is below those that
// systems give to connections, so it stays free until a server listens there.
func FreeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(20_000))
		reserved, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue // another call has returned it
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			reserved.Close()
			continue // in use
		}
		t.Cleanup(func() { reserved.Close() })
		require.NoError(t, l.Close())
		return addr
	}
	require.Fail(t, "no address is free")
	return ""
}
