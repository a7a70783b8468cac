// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Three members with the flags of etcd's documentation about TLS.
func TestMembersAndClientsUseTLS(t *testing.T) {
	processTest(t)
	ca := newAuthority(t)
	cert, key := ca.issue("server")
	peerCert, peerKey := ca.issue("peer")
	flags := []string{
		"--client-cert-auth", "--trusted-ca-file", ca.file, "--cert-file", cert, "--key-file", key,
		"--peer-client-cert-auth", "--peer-trusted-ca-file", ca.file, "--peer-cert-file", peerCert, "--peer-key-file", peerKey,
		"--peer-cert-allowed-cn=peer",
	}
	cl := startCluster(t, 3, "https", flags...)
	c := dial(t, ca.client(), cl.clientURLs()...)
	put(t, c, "k", "v")
	all, err := c.MemberList(t.Context())
	require.NoError(t, err)
	for _, m := range all.Members {
		require.Regexp(t, "^https://", m.PeerURLs[0])
	}
	cl.members[0].Prints("serving client traffic securely")

	without := ca.client()
	without.Certificates = nil
	conn, err := tls.Dial("tcp", cl.places[0].client, without)
	if err == nil { // with TLS 1.3, the endpoint rejects a client after the handshake of the client
		defer conn.Close()
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err = conn.Read(make([]byte, 1))
	}
	require.ErrorContains(t, err, "certificate required")

	// The cluster does not admit a member with a name that is not allowed, or with a certificate of another CA.
	for _, by := range []*authority{ca, newAuthority(t)} {
		cert, key := by.issue("stranger")
		p := newPlace(t, "stranger", "https")
		m := run(t, p.flags(append(flags, "--initial-cluster-state=existing", "--initial-cluster="+cl.places[0].entry()+","+p.entry(),
			"--initial-cluster-token=test", "--peer-cert-file="+cert, "--peer-key-file="+key)...)...)
		cl.members[0].Prints("connection refused")
		m.Prints("connection failed")
		require.NotContains(t, m.Output(), "ready to serve client requests")
		m.stop()
	}
}

func TestWrongCertificatesAreReported(t *testing.T) {
	processTest(t)
	ca := newAuthority(t)
	cert, key := ca.issue("server")
	_, otherKey := ca.issue("other")
	p := newPlace(t, "a", "https")
	for _, flags := range [][]string{
		{"--cert-file", cert, "--key-file", otherKey, "--peer-cert-file", cert, "--peer-key-file", key, "--peer-trusted-ca-file", ca.file},
		{"--cert-file", cert, "--key-file", key, "--peer-cert-file", cert, "--peer-key-file", otherKey, "--peer-trusted-ca-file", ca.file},
	} {
		m := run(t, p.flags(flags...)...)
		require.Equal(t, 1, m.Exits())
		m.Prints("private key does not match public key")
	}
}

// Members and clients without certificates still encrypt their traffic.
func TestCertificatesAreMade(t *testing.T) {
	processTest(t)
	cl := startCluster(t, 3, "https", "--auto-tls", "--peer-auto-tls", "--feature-gates=InitialCorruptCheck=true", "--corrupt-check-time=1s")
	c := dial(t, &tls.Config{InsecureSkipVerify: true}, cl.clientURLs()...)
	put(t, c, "k", "v")
	require.FileExists(t, filepath.Join(cl.places[0].dir, "fixtures", "client", "cert.pem"))
	require.FileExists(t, filepath.Join(cl.places[0].dir, "fixtures", "peer", "key.pem"))
	cl.members[0].stop()
	cl.members[0].start()
	cl.members[0].ready()
	require.Equal(t, "v", value(t, c, "k"))
	r, err := c.AlarmList(t.Context())
	require.NoError(t, err)
	require.Empty(t, r.Alarms)
}
