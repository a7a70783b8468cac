// SPDX-License-Identifier: Apache-2.0

package etcdapi_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/etcdapi"
)

// An authority is a CA of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64 // the serial number of the next certificate
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{cert, key, 2}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue returns a certificate with a common name, valid for localhost and for a host.
func (a *authority) issue(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name + ".example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	a.next++
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// intermediate returns an authority with a certificate that a has issued.
func (a *authority) intermediate(t testing.TB, name string) *authority {
	t.Helper()
	of := newAuthority(t, name)
	template := *of.cert
	template.SerialNumber = big.NewInt(a.next)
	a.next++
	der, err := x509.CreateCertificate(rand.Reader, &template, a.cert, &of.key.PublicKey, a.key)
	require.NoError(t, err)
	of.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return of
}

// revoke returns a revocation list.
func (a *authority) revoke(t testing.TB, certs ...tls.Certificate) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.Leaf.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	require.NoError(t, err)
	return der
}

// pemFiles are the files of an endpoint, in a directory of a test.
type pemFiles struct {
	t testing.TB
	etcdapi.TLS
}

func newPEMFiles(t testing.TB, a *authority) pemFiles {
	dir := t.TempDir()
	f := pemFiles{t, etcdapi.TLS{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}}
	f.certificate(a.issue(t, "server"))
	return f
}

func (f *pemFiles) certificate(c tls.Certificate) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(f.t, err)
	f.write(f.CertFile, "CERTIFICATE", c.Certificate[0])
	f.write(f.KeyFile, "PRIVATE KEY", der)
}

func (f *pemFiles) clientCA(a *authority) {
	f.ClientCAFile = filepath.Join(filepath.Dir(f.CertFile), "ca.pem")
	f.write(f.ClientCAFile, "CERTIFICATE", a.cert.Raw)
}

func (f *pemFiles) crl(der []byte) {
	f.CRLFile = filepath.Join(filepath.Dir(f.CertFile), "crl.pem")
	f.write(f.CRLFile, "X509 CRL", der)
}

func (f *pemFiles) write(name, kind string, der []byte) {
	require.NoError(f.t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func (f *pemFiles) serve(n *coterie.Node) (addr string) {
	cfg, err := etcdapi.LoadTLS(f.TLS)
	require.NoError(f.t, err)
	return serve(f.t, n, etcdapi.WithTLS(cfg))
}

// client returns the configuration of a client of an endpoint with a certificate of a.
func (a *authority) client(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: a.pool(), Certificates: certs}
}

// reach calls an endpoint with every protocol. All of them must have the same outcome: nil, or an error.
func reach(t testing.TB, addr string, cfg *tls.Config) error {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(cfg.Clone())))
	require.NoError(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, outcome := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	for _, http2 := range []bool{false, true} {
		transport := &http.Transport{TLSClientConfig: cfg.Clone(), ForceAttemptHTTP2: http2}
		resp, err := (&http.Client{Transport: transport}).Post("https://"+addr+"/v3/kv/range", "", nil)
		require.Equal(t, outcome == nil, err == nil, "gRPC: %v; HTTP: %v", outcome, err)
		if err == nil {
			require.Equal(t, http2, resp.ProtoMajor == 2)
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
		}
		transport.CloseIdleConnections()
	}
	return outcome
}

func TestTLSWithEveryProtocol(t *testing.T) {
	a := newAuthority(t, "ca")
	files := newPEMFiles(t, a)
	addr := files.serve(open(t))
	require.NoError(t, reach(t, addr, a.client()))
	old := a.client()
	old.MaxVersion = tls.VersionTLS12
	require.NoError(t, reach(t, addr, old))
	old.MaxVersion, old.MinVersion = tls.VersionTLS11, tls.VersionTLS10
	require.Error(t, reach(t, addr, old))
}

// A gRPC client that offers HTTP/1.1, too, gets gRPC from the server of HTTP.
func TestGRPCBesideHTTPOverTLS(t *testing.T) {
	a := newAuthority(t, "ca")
	files := newPEMFiles(t, a)
	addr := files.serve(open(t))
	cfg := a.client()
	cfg.NextProtos = []string{"h2", "http/1.1"}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	require.NoError(t, err)
	defer conn.Close()
	_, err = pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
	require.NoError(t, err)
	s := openWatchStream(t, conn)
	s.request(&pb.WatchCreateRequest{Key: []byte("k")})
}

// Clients that have no TLS, or that expect none, fail at once.
func TestTLSAndPlainTextDoNotMix(t *testing.T) {
	a := newAuthority(t, "ca")
	n := open(t)
	files := newPEMFiles(t, a)
	secure, plain := files.serve(n), serve(t, n)
	code, body, _ := do(t, "GET", "http://"+secure+"/version", "")
	require.Equal(t, http.StatusBadRequest, code)
	require.Equal(t, "Client sent an HTTP request to an HTTPS server.\n", body)
	_, err := pb.NewKVClient(dial(t, secure)).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
	require.Error(t, err)
	require.Error(t, reach(t, plain, a.client()))
}

func TestClientCertificatesAreRequired(t *testing.T) {
	a, other := newAuthority(t, "ca"), newAuthority(t, "ca")
	files := newPEMFiles(t, a)
	files.clientCA(a)
	addr := files.serve(open(t))
	require.NoError(t, reach(t, addr, a.client(a.issue(t, "client"))))
	require.Error(t, reach(t, addr, a.client()))
	require.Error(t, reach(t, addr, a.client(other.issue(t, "client"))))
}

// A configuration of the caller cannot make certificates optional, or the version too old.
func TestTLSOfTheCallerIsSecured(t *testing.T) {
	a := newAuthority(t, "ca")
	addr := serve(t, open(t), etcdapi.WithTLS(&tls.Config{
		Certificates: []tls.Certificate{a.issue(t, "server")}, ClientCAs: a.pool(), MinVersion: tls.VersionTLS10,
	}))
	require.Error(t, reach(t, addr, a.client()))
	client := a.client(a.issue(t, "client"))
	require.NoError(t, reach(t, addr, client))
	client.MaxVersion, client.MinVersion = tls.VersionTLS11, tls.VersionTLS10
	require.Error(t, reach(t, addr, client))
	for _, bad := range []*tls.Config{{}, {Certificates: []tls.Certificate{a.issue(t, "s")}, MaxVersion: tls.VersionTLS11}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		require.ErrorContains(t, etcdapi.Serve(t.Context(), l, open(t), etcdapi.WithTLS(bad)), "etcdapi: TLS")
		require.ErrorIs(t, l.Close(), net.ErrClosed)
	}
}

func TestTLSVersionsAndCipherSuites(t *testing.T) {
	a := newAuthority(t, "ca")
	n := open(t)
	const suite, other = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
	client := func(version uint16, suites ...uint16) *tls.Config {
		cfg := a.client()
		cfg.MinVersion, cfg.MaxVersion, cfg.CipherSuites = version, version, suites
		return cfg
	}
	for _, c := range []struct {
		min, max   uint16
		suites     []uint16
		ok, denied []*tls.Config
	}{
		{ok: []*tls.Config{client(tls.VersionTLS12), client(tls.VersionTLS13)}, denied: []*tls.Config{client(tls.VersionTLS11)}},
		{min: tls.VersionTLS13, ok: []*tls.Config{client(tls.VersionTLS13)}, denied: []*tls.Config{client(tls.VersionTLS12)}},
		{max: tls.VersionTLS12, ok: []*tls.Config{client(tls.VersionTLS12)}, denied: []*tls.Config{client(tls.VersionTLS13)}},
		{
			suites: []uint16{suite}, ok: []*tls.Config{client(tls.VersionTLS12, suite), client(tls.VersionTLS13)},
			denied: []*tls.Config{client(tls.VersionTLS12, other)},
		},
	} {
		files := newPEMFiles(t, a)
		files.MinVersion, files.MaxVersion, files.CipherSuites = c.min, c.max, c.suites
		addr := files.serve(n)
		for _, cfg := range c.ok {
			require.NoError(t, reach(t, addr, cfg))
		}
		for _, cfg := range c.denied {
			require.Error(t, reach(t, addr, cfg))
		}
	}
}

// In etcd, the revocation list did not concern gRPC in some configurations.
func TestRevokedClientsAreRejected(t *testing.T) {
	a, other := newAuthority(t, "ca"), newAuthority(t, "other")
	files := newPEMFiles(t, a)
	files.clientCA(a)
	revoked, good := a.issue(t, "client"), a.issue(t, "client")
	files.crl(a.revoke(t, revoked))
	n := open(t)
	addr := files.serve(n)
	require.Error(t, reach(t, addr, a.client(revoked)))
	require.NoError(t, reach(t, addr, a.client(good)))
	other.next = good.Leaf.SerialNumber.Int64()
	files.crl(other.revoke(t, other.issue(t, "client")))
	require.NoError(t, reach(t, files.serve(n), a.client(good)), "another CA has revoked that number")
	require.NoError(t, os.WriteFile(files.CRLFile, a.revoke(t, good), 0o600))
	require.Error(t, reach(t, files.serve(n), a.client(good)), "a list may be DER")
}

// A client is rejected if the CA has revoked the intermediate certificate between the client's and its own.
func TestRevokedIntermediateIsRejected(t *testing.T) {
	root := newAuthority(t, "root")
	between := root.intermediate(t, "between")
	files := newPEMFiles(t, root)
	files.clientCA(root)
	n := open(t)
	client := between.issue(t, "client")
	client.Certificate = append(client.Certificate, between.cert.Raw)
	files.crl(root.revoke(t))
	require.NoError(t, reach(t, files.serve(n), root.client(client)))
	files.crl(root.revoke(t, tls.Certificate{Leaf: between.cert}))
	require.Error(t, reach(t, files.serve(n), root.client(client)))
}

// A resumed session would skip the check of the client against the present files.
func TestSessionsAreNotResumed(t *testing.T) {
	a := newAuthority(t, "ca")
	files := newPEMFiles(t, a)
	loaded, err := etcdapi.LoadTLS(files.TLS)
	require.NoError(t, err)
	own, err := tls.Listen("tcp", "127.0.0.1:0", loaded)
	require.NoError(t, err)
	defer own.Close()
	go func() {
		for c, err := own.Accept(); err == nil; c, err = own.Accept() {
			_ = c.(*tls.Conn).Handshake()
			_ = c.Close()
		}
	}()
	resumable := &tls.Config{Certificates: []tls.Certificate{a.issue(t, "server")}}
	resumable.SetSessionTicketKeys([][32]byte{{1}}) // without keys, no two connections would have the same
	callers := serve(t, open(t), etcdapi.WithTLS(resumable))
	for name, addr := range map[string]string{"a server of the caller": own.Addr().String(), "a configuration of the caller": callers} {
		cfg := a.client()
		cfg.MaxVersion, cfg.ClientSessionCache = tls.VersionTLS12, tls.NewLRUClientSessionCache(1) // 1.2 has the ticket in the handshake
		for range 2 {
			c, err := tls.Dial("tcp", addr, cfg)
			require.NoError(t, err, name)
			require.False(t, c.ConnectionState().DidResume, name)
			require.NoError(t, c.Close())
		}
	}
}

func TestAllowedNamesOfClients(t *testing.T) {
	a := newAuthority(t, "ca")
	files := newPEMFiles(t, a)
	files.clientCA(a)
	n := open(t)
	files.AllowedCNs = []string{"one", "two"}
	addr := files.serve(n)
	require.NoError(t, reach(t, addr, a.client(a.issue(t, "two"))))
	require.Error(t, reach(t, addr, a.client(a.issue(t, "three"))))
	files.AllowedCNs, files.AllowedHostnames = nil, []string{"one.example"}
	addr = files.serve(n)
	require.NoError(t, reach(t, addr, a.client(a.issue(t, "one"))))
	require.Error(t, reach(t, addr, a.client(a.issue(t, "two"))))
}

func TestTLSFollowsItsFiles(t *testing.T) {
	a, next := newAuthority(t, "ca"), newAuthority(t, "next")
	files := newPEMFiles(t, a)
	files.clientCA(a)
	files.crl(a.revoke(t))
	client, later := a.issue(t, "client"), next.issue(t, "client")
	addr := files.serve(open(t))
	require.NoError(t, reach(t, addr, a.client(client)))
	becomes := func(cfg *tls.Config, reachable bool) {
		t.Helper()
		require.Eventually(t, func() bool { return (reachable == (dialTLS(addr, cfg) == nil)) }, 5*time.Second, 50*time.Millisecond)
		require.Equal(t, reachable, reach(t, addr, cfg) == nil)
	}
	files.crl(a.revoke(t, client))
	becomes(a.client(client), false)

	require.NoError(t, os.WriteFile(files.ClientCAFile, []byte("half"), 0o600))
	good := a.client(a.issue(t, "client"))
	require.Never(t, func() bool { return dialTLS(addr, good) != nil }, 1200*time.Millisecond, 100*time.Millisecond, "the last good files count")

	files.clientCA(next)
	files.crl(next.revoke(t))
	files.certificate(next.issue(t, "server"))
	becomes(next.client(later), true)
	require.Error(t, reach(t, addr, a.client(a.issue(t, "client"))))
}

// dialTLS reports why a client cannot connect. With TLS 1.3 only a read shows that.
func dialTLS(addr string, cfg *tls.Config) error {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"http/1.1"}
	conn, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /version HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// A client that connects and sends nothing delays no other client.
func TestSilentHandshakesDelayNoClient(t *testing.T) {
	a := newAuthority(t, "ca")
	files := newPEMFiles(t, a)
	addr := files.serve(open(t))
	for range 50 {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer c.Close()
	}
	begin := time.Now()
	require.NoError(t, reach(t, addr, a.client()))
	require.Less(t, time.Since(begin), 3*time.Second)
}

func TestLoadTLSErrors(t *testing.T) {
	a := newAuthority(t, "ca")
	files := func(change func(f *pemFiles)) error {
		f := newPEMFiles(t, a)
		f.clientCA(a)
		f.crl(a.revoke(t))
		change(&f)
		_, err := etcdapi.LoadTLS(f.TLS)
		return err
	}
	require.NoError(t, files(func(*pemFiles) {}))
	require.ErrorIs(t, files(func(f *pemFiles) { f.CertFile = "" }), fs.ErrNotExist)
	require.ErrorIs(t, files(func(f *pemFiles) { f.KeyFile += "none" }), fs.ErrNotExist)
	require.ErrorIs(t, files(func(f *pemFiles) { f.CRLFile += "none" }), fs.ErrNotExist)
	require.ErrorContains(t, files(func(f *pemFiles) { f.KeyFile = f.CertFile }), "cert.pem")
	require.ErrorContains(t, files(func(f *pemFiles) { f.ClientCAFile = f.KeyFile }), `a block of type "PRIVATE KEY"`)
	require.ErrorContains(t, files(func(f *pemFiles) { f.CRLFile = f.CertFile }), `a block of type "CERTIFICATE"`)
	require.ErrorContains(t, files(func(f *pemFiles) { f.ClientCAFile = "" }), "need a ClientCAFile")
	require.ErrorContains(t, files(func(f *pemFiles) { f.AllowedCNs, f.AllowedHostnames = []string{"a"}, []string{"b"} }), "exclude each other")
	require.ErrorContains(t, files(func(f *pemFiles) { f.MinVersion = tls.VersionTLS11 }), "TLS 1.1")
	require.ErrorContains(t, files(func(f *pemFiles) { f.MinVersion, f.MaxVersion = tls.VersionTLS13, tls.VersionTLS12 }), "above MaxVersion")
	require.ErrorContains(t, files(func(f *pemFiles) {
		f.MinVersion, f.CipherSuites = tls.VersionTLS13, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	}), "MinVersion excludes it")
	require.ErrorContains(t, files(func(f *pemFiles) { f.CipherSuites = []uint16{tls.TLS_AES_128_GCM_SHA256} }), "TLS_AES_128_GCM_SHA256")
	require.ErrorContains(t, files(func(f *pemFiles) {
		require.NoError(t, os.WriteFile(f.ClientCAFile, []byte("-----BEGIN CERTIFICATE-----\nMI"), 0o600))
	}), "ca.pem: no PEM block")
}
