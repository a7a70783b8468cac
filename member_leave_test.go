// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
)

// A lateAnswers is a network on which replies on outgoing connections are slower than messages on incoming
// ones.
type lateAnswers struct{ coterie.Network }

func (n lateAnswers) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := n.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return lateConn{c}, nil
}

type lateConn struct{ net.Conn }

func (c lateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	time.Sleep(20 * time.Millisecond)
	return n, err
}

// A node that leaves may learn that it was removed before its own call is answered. That is no fault: it has
// asked for the removal.
func TestLeaveIsNoFault(t *testing.T) {
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		n := c.Node(c.Join(nil))
		ready(t, n)
		awaitVote(t, c.Leader(), n.Status().Name)
		require.NoError(t, n.Leave(t.Context()))
		require.ErrorIs(t, n.Err(), coterie.ErrClosed)
		require.NotErrorIs(t, n.Err(), coterie.ErrMemberNotFound)
		requireHealth(t, n, 200, 503)
		c.Stop(c.Index(n)) // the node has stopped by itself
	}, coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		if i == 3 {
			cfg.Network = lateAnswers{cfg.Network}
		}
	}))
}
