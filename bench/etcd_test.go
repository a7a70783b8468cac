// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie/bench/harness"
)

// The first member of three neither serves nor stops by itself when the second one has no address.
func TestEtcdWithoutItsAddressIsClosed(t *testing.T) {
	c := &etcdCluster{setup: harness.Setup{Members: 3, Dir: t.TempDir()}}
	require.NoError(t, c.configure())
	taken, err := net.Listen("tcp", c.configs[1].ListenPeerUrls[0].Host)
	require.NoError(t, err)
	defer taken.Close()
	require.ErrorIs(t, c.startAll(t.Context()), syscall.EADDRINUSE)
	require.NoError(t, c.closeAll())
}
