// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi/internal/selfsigned"
)

func TestNamesOfMembersAreChecked(t *testing.T) {
	certFile, keyFile, err := selfsigned.Files(t.TempDir(), []string{"localhost"}, time.Hour)
	require.NoError(t, err)
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: "m1"}, DNSNames: []string{"m1.example"}}
	claim := coterie.Claim{TLS: tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}}
	secured := func(args ...string) (cfg coterie.Config) {
		s, err := Parse(append(args, "--listen-peer-urls=https://127.0.0.1:2380", "--initial-advertise-peer-urls=https://127.0.0.1:2380",
			"--initial-cluster=default=https://127.0.0.1:2380", "--peer-cert-file="+certFile, "--peer-key-file="+keyFile, "--peer-trusted-ca-file="+certFile), nil)
		require.NoError(t, err)
		require.NoError(t, s.securePeers(&cfg))
		return cfg
	}
	require.Nil(t, secured().VerifyMember)
	require.NoError(t, secured("--peer-cert-allowed-hostname=m0.example,m1.example").VerifyMember(t.Context(), claim))
	require.NoError(t, secured("--peer-cert-allowed-cn=m0,m1").VerifyMember(t.Context(), claim))
	for flag, text := range map[string]string{
		"--peer-cert-allowed-hostname=m2.example": "not valid for any name",
		"--peer-cert-allowed-cn=m2":               `the common name "m1" is not in`,
	} {
		require.ErrorContains(t, secured(flag).VerifyMember(t.Context(), claim), text)
		require.ErrorContains(t, secured(flag).VerifyMember(t.Context(), coterie.Claim{}), "no certificate")
	}
}
