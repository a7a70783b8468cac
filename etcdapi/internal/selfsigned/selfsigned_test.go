// SPDX-License-Identifier: Apache-2.0

package selfsigned

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func load(t *testing.T, certFile, keyFile string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	require.NoError(t, err)
	return pair
}

func TestCertificateIsValidForItsHosts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fixtures", "client")
	certFile, keyFile, err := Files(dir, []string{"127.0.0.1:2379", "store.example", "::1"}, time.Hour)
	require.NoError(t, err)
	pair := load(t, certFile, keyFile)
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	for host, ok := range map[string]bool{"127.0.0.1": true, "store.example": true, "::1": true, "other.example": false} {
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
			require.Equal(t, ok, err == nil, "%s: %v", host, err)
		}
	}
	require.WithinDuration(t, time.Now().Add(time.Hour), pair.Leaf.NotAfter, time.Minute)
	for _, name := range []string{certFile, keyFile} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
}

func TestClientsConnectWithTheCertificate(t *testing.T) {
	pair := made(t, t.TempDir(), time.Hour)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	require.NoError(t, err)
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_ = c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots})
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

// made returns the certificate of a directory.
func made(t *testing.T, dir string, validity time.Duration) tls.Certificate {
	t.Helper()
	certFile, keyFile, err := Files(dir, []string{"127.0.0.1"}, validity)
	require.NoError(t, err)
	return load(t, certFile, keyFile)
}

func TestCertificateIsReplacedWhenItExpires(t *testing.T) {
	dir := t.TempDir()
	first := made(t, dir, time.Hour)
	again := made(t, dir, time.Hour)
	require.Equal(t, first.Leaf.Raw, again.Leaf.Raw)

	dir = t.TempDir()
	short := made(t, dir, time.Nanosecond)
	next := made(t, dir, time.Hour)
	require.NotEqual(t, short.Leaf.Raw, next.Leaf.Raw)

	// The process was killed before it renamed the certificate.
	require.NoError(t, os.Remove(filepath.Join(dir, certName)))
	require.NotEqual(t, next.Leaf.Raw, made(t, dir, time.Hour).Leaf.Raw)
}

func TestFilesOfOthersAreKept(t *testing.T) {
	dir := t.TempDir()
	made(t, dir, time.Hour)
	require.NoError(t, os.WriteFile(filepath.Join(dir, certName), []byte("half"), 0o600))
	_, _, err := Files(dir, []string{"127.0.0.1"}, time.Hour)
	require.ErrorContains(t, err, dir)
	_, _, err = Files(t.TempDir(), nil, time.Hour)
	require.Error(t, err)
	_, _, err = Files(t.TempDir(), []string{net.IPv4bcast.String()}, 0)
	require.Error(t, err)
}
