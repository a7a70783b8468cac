// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// An authority is a CA, with a directory of files.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
	next int64 // the serial number of the next certificate
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.sign(t, "ca", template)
	return a
}

// issue returns the files of a certificate with a common name, for servers on a host and for clients.
func (a *authority) issue(t testing.TB, name, host string) transport.TLSInfo {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	a.sign(t, name, template)
	return transport.TLSInfo{
		CertFile: a.file(name + ".pem"), KeyFile: a.file(name + "-key.pem"), TrustedCAFile: a.file("ca.pem"), ClientCertAuth: true,
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// sign signs a certificate, with its own key if it is the first one, and writes it and its key to files.
func (a *authority) sign(t testing.TB, name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a.next++
	template.SerialNumber = big.NewInt(a.next)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	encoded, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	write := func(file, kind string, der []byte) {
		require.NoError(t, os.WriteFile(a.file(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	write(name+".pem", "CERTIFICATE", der)
	write(name+"-key.pem", "EC PRIVATE KEY", encoded)
	return cert, key
}

// certificate returns a certificate of a CA of its own, for servers on a host and for clients.
func certificate(t testing.TB, host string) transport.TLSInfo {
	t.Helper()
	return newAuthority(t).issue(t, "server", host)
}

// refused runs a command that gets no connection, and requires that the program's log matches a pattern. It tries
// several times and longer each time: the log has the last error, which may be that of a write on a connection that the
// other side has just closed, and a busy machine needs time for a handshake.
func (p *pair) refused(reason string, args ...string) {
	p.Helper()
	expected := regexp.MustCompile(reason)
	p.compare(args, p.each(func(s *store) (r result) {
		for attempt := range 10 {
			timeout := fmt.Sprintf("--command-timeout=%dms", 300*(attempt+1))
			r = s.start(p, "", append(slices.Clone(args), timeout)...).wait(p)
			if expected.MatchString(r.stderr) {
				r.stderr = r.stderr[strings.LastIndex(r.stderr, "Error:"):] // the lines before it are as many as there were attempts
				return r
			}
		}
		p.Errorf("etcdctl %q on %s: %v", args, s.name, r)
		return r
	}))
}

func TestTLS(t *testing.T) {
	t.Parallel()
	security := certificate(t, "127.0.0.1")
	p := setup{members: 1, security: security}.start(t)
	p.prints("OK\n", "put", "k", "v")
	p.prints("k\nv\n", "get", "k")
	p.tabled("member", "list")
	p.same("put", "k", "v", "--endpoints=https://{endpoint0}")
	p.same("get", "k", "--insecure-skip-tls-verify")
	other := certificate(t, "127.0.0.1")
	p.refused("authentication handshake failed", "get", "k", "--cacert="+other.TrustedCAFile)
	flags := p.stores[0].flags
	for _, s := range p.stores {
		s.flags = nil
	}
	p.refused("x509: certificate signed by unknown authority", "get", "k", "--endpoints=https://{endpoint0}")
	// With TLS 1.3 a client may write before it reads that the server has rejected it.
	p.refused("tls: certificate required|broken pipe|connection reset by peer", "get", "k", flags[0])
	p.refused("error reading server preface", "get", "k")
	for _, s := range p.stores { // a program of clientv3
		cfg, err := transport.TLSInfo{TrustedCAFile: security.TrustedCAFile, CertFile: security.CertFile, KeyFile: security.KeyFile}.ClientConfig()
		require.NoError(t, err)
		c, err := clientv3.New(clientv3.Config{Endpoints: s.endpoints, TLS: cfg, Logger: zap.NewNop()})
		require.NoError(t, err)
		r, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, "v", string(r.Kvs[0].Value))
		require.NoError(t, c.Close())
	}
}

func TestTLSOfAnotherHost(t *testing.T) {
	t.Parallel()
	security := certificate(t, "localhost")
	p := setup{members: 1, security: security}.start(t)
	p.refused("authentication handshake failed", "get", "k")
}
