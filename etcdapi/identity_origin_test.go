// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/coterie-kv/coterie/coterietest"
)

// A program may call its client, or the gateway, within a call of its own gRPC server. The certificate in the context is
// that of the client of that server.
func TestCommonNamesCountForGRPCOnly(t *testing.T) {
	coterietest.Run(t, 1, func(t *testing.T, c *coterietest.Cluster) {
		s := newServer(c.Leader(), []Option{WithCommonNames(true)})
		state := tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "alice"}}}}}
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
		name, ok := s.from(network).commonName(ctx)
		require.True(t, ok)
		require.Equal(t, "alice", name)
		for _, o := range []origin{gateway, embedder, delegated} {
			_, ok = s.from(o).commonName(ctx)
			require.False(t, ok, o)
		}
		for _, ctx := range []context.Context{ctx, t.Context()} {
			user, err := s.from(embedder).identify(ctx)
			require.NoError(t, err)
			require.Same(t, s.own, user)
		}
	})
}
