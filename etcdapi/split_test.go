// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A connection that sends nothing, or a part of its first bytes, is closed after headerTimeout, with TLS and without.
func TestSilentConnectionsAreClosed(t *testing.T) {
	for _, cfg := range []*tls.Config{nil, {}} {
		for _, sent := range []string{"", "PRI"} {
			synctest.Test(t, func(t *testing.T) {
				client, accepted := net.Pipe()
				defer client.Close()
				s := &splitter{tls: cfg, limit: 1, counted: new(traffic), open: map[*conn]struct{}{}}
				c := &conn{Conn: accepted, in: s}
				require.True(t, s.add(c))
				go s.decide(c)
				begin := time.Now()
				_, err := io.WriteString(client, sent)
				require.NoError(t, err)
				_, err = io.ReadAll(client)
				require.NoError(t, err)
				synctest.Wait()
				require.GreaterOrEqual(t, time.Since(begin), headerTimeout)
				require.LessOrEqual(t, time.Since(begin), headerTimeout+lingerTime)
				require.Empty(t, s.open, "it no longer counts")
			})
		}
	}
}
