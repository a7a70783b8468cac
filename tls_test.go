// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/memnet"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, NotBefore: longAgo, NotAfter: farAway,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

// The clock of a bubble begins in 2000.
var (
	longAgo = time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC)
	farAway = time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	return n
}

// issue makes a certificate for a host, a name or an IP address, and its key.
func (a *authority) issue(t testing.TB, host string, change ...func(*x509.Certificate)) (cert, key []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: host}, NotBefore: longAgo, NotAfter: farAway,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	for _, f := range change {
		f(template)
	}
	own := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(own)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// pool makes a pool of authorities.
func pool(of ...*authority) *x509.CertPool {
	p := x509.NewCertPool()
	for _, a := range of {
		p.AddCert(a.cert)
	}
	return p
}

// cheap are the curves of configurations without files: handshakes with the default ones take twice as long, which is most of
// the time of these tests.
var cheap = []tls.CurveID{tls.CurveP256}

// static returns a configuration without files. It trusts the given authorities, or else the one that signs.
func (a *authority) static(t testing.TB, host string, trusted ...*authority) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, host))
	require.NoError(t, err)
	if trusted == nil {
		trusted = []*authority{a}
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool(trusted...), CurvePreferences: cheap}
}

// keyFiles are the three files of a node.
type keyFiles struct{ ca, cert, key string }

func newKeyFiles(t testing.TB) keyFiles {
	dir := t.TempDir()
	return keyFiles{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

func (f keyFiles) load(t testing.TB) *tls.Config {
	t.Helper()
	cfg, err := coterie.LoadTLS(f.ca, f.cert, f.key)
	require.NoError(t, err)
	return cfg
}

// write replaces a file atomically.
func write(t testing.TB, name string, content ...[]byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(name+".new", bytes.Join(content, nil), 0o600))
	require.NoError(t, os.Rename(name+".new", name))
}

func (f keyFiles) issue(t testing.TB, a *authority, host string) {
	t.Helper()
	cert, key := a.issue(t, host)
	write(t, f.key, key)
	write(t, f.cert, cert)
}

// A wiretap is a network that records its traffic and can break its connections.
type wiretap struct {
	coterie.Network
	mu    sync.Mutex
	open  []net.Conn
	heard bytes.Buffer
}

func (n *wiretap) Dial(ctx context.Context, addr string) (net.Conn, error) {
	nc, err := n.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open = append(n.open, nc)
	return tapped{nc, n}, nil
}

// breakAll breaks every connection that was dialled.
func (n *wiretap) breakAll() {
	n.mu.Lock()
	open := n.open
	n.open = nil
	n.mu.Unlock()
	for _, nc := range open {
		nc.Close()
	}
}

type tapped struct {
	net.Conn
	tap *wiretap
}

func (c tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	c.tap.heard.Write(p[:n])
	return n, err
}

func (c tapped) Write(p []byte) (int, error) {
	c.tap.mu.Lock()
	c.tap.heard.Write(p)
	c.tap.mu.Unlock()
	return c.Conn.Write(p)
}

func TestTLSCluster(t *testing.T) {
	ca := newAuthority(t, "ca")
	taps := make([]*wiretap, 3)
	encrypted := coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		taps[i] = &wiretap{Network: cfg.Network}
		cfg.Network = taps[i]
		cfg.TLS = ca.static(t, cfg.Name)
	})
	const secret = "a secret value of the cluster"
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		for _, n := range c.Nodes() {
			put(t, n, n.Status().Name, secret)
		}
		put(t, c.Follower(), "large", strings.Repeat(secret, 1<<20/len(secret)))
		old := c.Index(c.Leader())
		c.Crash(old)
		put(t, c.Leader(), "k", "after")
		c.Restart(old)
		require.Equal(t, "after", get(t, c.Node(old), "k").KVs[0].Value)
		sameState(t, c)
		for _, tap := range taps {
			tap.mu.Lock()
			require.Greater(t, tap.heard.Len(), 1<<10)
			require.NotContains(t, tap.heard.String(), secret)
			require.NotContains(t, tap.heard.String(), "cot\xe9", "a hello in plain text")
			tap.mu.Unlock()
		}
	}, encrypted)
}

func TestTLSOverTCP(t *testing.T) {
	ca := newAuthority(t, "ca")
	c := coterietest.NewCluster(t, 3, coterietest.WithTCP(), coterietest.WithConfig(func(_ int, cfg *coterie.Config) {
		files := newKeyFiles(t)
		write(t, files.ca, ca.pem)
		files.issue(t, ca, "127.0.0.1")
		cfg.TLS = files.load(t)
	}))
	for _, n := range c.Nodes() {
		put(t, n, n.Status().Name, "v")
	}
	old := c.Index(c.Leader())
	c.Stop(old)
	put(t, c.Leader(), "k", "v")
	c.Restart(old)
	sameState(t, c)
}

func TestTLSOfOpenCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := newAuthority(t, "ca").static(t, "localhost")
		c, err := coterie.OpenCluster(t.Context(), 3, coterie.Config{InMemory: true, TLS: cfg})
		require.NoError(t, err)
		put(t, c.Node(1), "k", "v")
		require.Equal(t, "v", get(t, c.Node(2), "k").KVs[0].Value)
		require.NoError(t, c.Close())
		require.Zero(t, cfg.ClientAuth, "the caller's configuration is unchanged")
		require.Nil(t, cfg.ClientCAs)
		require.Zero(t, cfg.MinVersion)
		require.Empty(t, cfg.ServerName)
		require.False(t, cfg.SessionTicketsDisabled)
	})
}

func TestTLSConfigIsChecked(t *testing.T) {
	ca := newAuthority(t, "ca")
	for name, c := range map[string]struct {
		change func(*tls.Config)
		faults []string // none if the configuration is valid
	}{
		"sound":               {func(*tls.Config) {}, nil},
		"TLS 1.2":             {func(c *tls.Config) { c.MinVersion = tls.VersionTLS12 }, nil},
		"TLS 1.2 at most":     {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, nil},
		"TLS 1.1":             {func(c *tls.Config) { c.MinVersion = tls.VersionTLS11 }, []string{"TLS 1.1"}},
		"TLS 1.1 at most":     {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 }, []string{"TLS 1.1"}},
		"no CA":               {func(c *tls.Config) { c.RootCAs, c.ClientCAs = nil, pool(ca) }, []string{"RootCAs"}},
		"a pool without CA":   {func(c *tls.Config) { c.RootCAs = pool() }, []string{"RootCAs"}},
		"no certificate":      {func(c *tls.Config) { c.Certificates = nil }, []string{"GetCertificate", "GetClientCertificate"}},
		"only for one side":   {func(c *tls.Config) { c.GetCertificate, c.Certificates = certificateOf(c), nil }, []string{"GetClientCertificate"}},
		"unchecked":           {func(c *tls.Config) { c.InsecureSkipVerify = true }, []string{"InsecureSkipVerify"}},
		"everything is wrong": {func(c *tls.Config) { *c = tls.Config{MinVersion: 1} }, []string{"RootCAs", "GetCertificate", "Config.TLS"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ca.static(t, "localhost")
			c.change(cfg)
			cluster, err := coterie.OpenCluster(t.Context(), 1, coterie.Config{InMemory: true, TLS: cfg})
			if c.faults == nil {
				require.NoError(t, err)
				require.NoError(t, cluster.Close())
				return
			}
			require.ErrorIs(t, err, coterie.ErrInvalidOption)
			for _, fault := range c.faults {
				require.ErrorContains(t, err, fault)
			}
			require.ErrorContains(t, err, "Config.TLS")
		})
	}
}

func certificateOf(c *tls.Config) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert := c.Certificates[0]
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }
}

// A record has the log of a node.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

// lines returns the lines that contain all the texts.
func (r *record) lines(texts ...string) (found []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
next:
	for line := range strings.Lines(r.text.String()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

func (r *record) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

// A pair is two founders, a and b, with their logs.
type pair struct {
	a, b       *coterie.Node
	logA, logB record
}

func openPair(t *testing.T, network func(host string) coterie.Network, addrA, addrB string, a, b *tls.Config) *pair {
	t.Helper()
	p := &pair{}
	founders := []coterie.Founder{{Name: "a", Addr: addrA}, {Name: "b", Addr: addrB}}
	for i, of := range []struct {
		node **coterie.Node
		cfg  *tls.Config
		log  *record
	}{{&p.a, a, &p.logA}, {&p.b, b, &p.logB}} {
		n, err := coterie.Open(t.Context(), coterie.Config{
			InMemory: true, Name: founders[i].Name, Addr: founders[i].Addr, Founders: founders, Network: network(founders[i].Name), TLS: of.cfg,
			Logger: of.log.logger(), ElectionTimeout: 200 * time.Millisecond,
		})
		require.NoError(t, err)
		t.Cleanup(func() { n.Close() })
		*of.node = n
	}
	return p
}

// If two nodes do not agree on TLS, each of them reports why: in the error of Ready, and in its log, which is not
// flooded.
func TestTLSRefusals(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "another ca")
	expired := func(host string) *tls.Config {
		cfg := ca.static(t, host)
		pair, err := tls.X509KeyPair(ca.issue(t, host, func(c *x509.Certificate) { c.NotAfter = longAgo.Add(time.Hour) }))
		require.NoError(t, err)
		cfg.Certificates[0] = pair
		return cfg
	}
	for name, c := range map[string]struct {
		a, b           *tls.Config
		readyA, readyB []string // the error has one of them
		logA, logB     []string // the same, for the log of the accepting side
	}{
		"another CA": {
			ca.static(t, "a"), other.static(t, "b"),
			[]string{"unknown authority"}, []string{"unknown authority"},
			[]string{"bad certificate", "unknown certificate authority"}, []string{"bad certificate", "unknown certificate authority"},
		},
		"another CA, trusted by one": {
			ca.static(t, "a"), other.static(t, "b", ca, other),
			[]string{"unknown authority"}, []string{"unknown certificate authority"},
			[]string{"unknown authority"}, []string{"bad certificate"},
		},
		"expired": {
			ca.static(t, "a"), expired("b"),
			[]string{"has expired"}, []string{"expired certificate"},
			[]string{"has expired"}, []string{"expired certificate", "bad certificate"},
		},
		"another name": {
			ca.static(t, "c"), ca.static(t, "c"),
			[]string{"valid for c, not b"}, []string{"valid for c, not a"},
			[]string{"bad certificate"}, []string{"bad certificate"},
		},
		"one has no TLS": {
			ca.static(t, "a"), nil,
			[]string{"this node has TLS, the other none"}, []string{"the node has TLS, this one has none"},
			[]string{"the caller has no TLS"}, []string{"the caller begins with TLS"},
		},
		"only for servers": {
			ca.static(t, "a"), usage(t, ca, "b", x509.ExtKeyUsageServerAuth),
			nil, []string{"bad certificate"},
			[]string{"incompatible key usage"}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := memnet.New()
				host := func(name string) coterie.Network { return network.Host(name) }
				p := openPair(t, host, "a:1", "b:1", c.a, c.b)
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				var waiting sync.WaitGroup
				sides := []*struct {
					n               *coterie.Node
					log             *record
					peer            string
					ready, accepted []string
					err             error
				}{{p.a, &p.logA, "b:1", c.readyA, c.logA, nil}, {p.b, &p.logB, "a:1", c.readyB, c.logB, nil}}
				for _, side := range sides {
					waiting.Go(func() { side.err = side.n.Ready(ctx) })
				}
				waiting.Wait()
				for _, side := range sides {
					if side.ready != nil {
						require.ErrorIs(t, side.err, context.DeadlineExceeded)
						require.ErrorContains(t, side.err, side.peer)
						requireOneOf(t, side.err.Error(), side.ready)
						requireOneOf(t, side.log.few(t, "connection failed", "remote="+side.peer), side.ready)
					}
					if side.accepted != nil {
						requireOneOf(t, side.log.few(t, "connection refused"), side.accepted)
					}
				}
			})
		})
	}
}

// few returns the lines that contain all the texts. It requires at least one and at most two in 15 seconds.
func (r *record) few(t *testing.T, texts ...string) string {
	t.Helper()
	lines := r.lines(texts...)
	require.NotEmpty(t, lines, "%q in %s", texts, &r.text)
	require.LessOrEqual(t, len(lines), 2)
	return strings.Join(lines, "")
}

func requireOneOf(t *testing.T, text string, parts []string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(text, part) {
			return
		}
	}
	t.Fatalf("none of %q in %s", parts, text)
}

// usage returns a configuration with a certificate for one use only.
func usage(t *testing.T, a *authority, host string, use x509.ExtKeyUsage) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, host, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{use} }))
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool(a), CurvePreferences: cheap}
}

// A TCP connection that is closed too soon is reset, and the last message may be lost.
func TestTLSRefusalsArriveOverTCP(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "another ca")
	for name, c := range map[string]struct {
		b                 *tls.Config
		ready, acceptedBy string
	}{
		"another CA, trusted by one": {other.static(t, "127.0.0.1", ca, other), "unknown certificate authority", "unknown authority"},
		"one has no TLS":             {nil, "the node has TLS, this one has none", "the caller has no TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			p := openPair(t, func(string) coterie.Network { return nil }, freeAddr(t), freeAddr(t), ca.static(t, "127.0.0.1"), c.b)
			ready := func() string {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				return p.b.Ready(ctx).Error()
			}
			for begin := time.Now(); !strings.Contains(ready(), c.ready); {
				require.Less(t, time.Since(begin), 20*time.Second, "in the end: %s\n%s", ready(), &p.logB.text)
			}
			require.NoError(t, p.a.Close())
			p.logA.few(t, "connection refused", c.acceptedBy)
		})
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// Connections that begin a handshake and do not complete it are bounded in number and time, like those that send
// nothing.
func TestTLSStallingStrangers(t *testing.T) {
	ca := newAuthority(t, "ca")
	network := memnet.New()
	encrypted := coterietest.WithConfig(func(_ int, cfg *coterie.Config) {
		cfg.Network = network.Host(cfg.Name)
		cfg.TLS = ca.static(t, cfg.Name)
	})
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		leader, follower := c.Leader(), c.Index(c.Follower())
		addr := leader.Status().Addr
		begun := clientHello(t)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		goroutines := runtime.NumGoroutine()
		var strangers []net.Conn
		for i := range 1000 {
			nc, err := network.Host("stranger").Dial(t.Context(), addr)
			require.NoError(t, err)
			_, err = nc.Write(begun[:1+i%len(begun)]) // a complete hello makes the other side answer and wait
			require.NoError(t, err)
			strangers = append(strangers, nc)
			synctest.Wait()
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		require.LessOrEqual(t, runtime.NumGoroutine()-goroutines, 2*128+22, "two for each pending connection, of at most 128")
		require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(32<<20), "1000 connections, mostly their own side")

		begin := time.Now()
		c.Stop(follower)
		c.Restart(follower) // its new connections are accepted
		require.NoError(t, c.Node(follower).Ready(t.Context()))
		put(t, c.Node(follower), "k", "v")
		require.Less(t, time.Since(begin), 3*time.Second)

		time.Sleep(7 * time.Second)
		for _, nc := range strangers {
			_, err := io.Copy(io.Discard, nc)
			require.NoError(t, err, "the node closed the connection")
			nc.Close()
		}
		require.Equal(t, leader, c.Leader())
		sameState(t, c)
	}, encrypted)
}

// clientHello returns the first message of a TLS client.
func clientHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go tls.Client(theirs, &tls.Config{ServerName: "node1"}).Handshake()
	b := make([]byte, 16<<10)
	n, err := ours.Read(b)
	require.NoError(t, err)
	return b[:n]
}

// No caller is accepted without a certificate of a trusted CA, even if the configuration, or one that it chooses
// for a connection, would allow it. Every connection is checked, even after an earlier one.
func TestTLSRequiresACertificateOfEveryCaller(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "another ca")
	lax := func() *tls.Config {
		return &tls.Config{Certificates: ca.static(t, "a").Certificates, ClientAuth: tls.NoClientCert}
	}
	choosing := ca.static(t, "a")
	chosen := lax()
	choosing.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return chosen, nil }
	static := ca.static(t, "a")
	static.ClientAuth = tls.NoClientCert
	files := newKeyFiles(t)
	write(t, files.ca, ca.pem)
	files.issue(t, ca, "a")
	for name, cfg := range map[string]*tls.Config{"static": static, "choosing": choosing, "files": files.load(t)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := memnet.New()
				var log record
				n, err := coterie.Open(t.Context(), coterie.Config{
					InMemory: true, Addr: "a:1", Network: network.Host("a"), TLS: cfg, Logger: log.logger(),
				})
				require.NoError(t, err)
				defer n.Close()
				require.Equal(t, tls.NoClientCert, chosen.ClientAuth, "the caller's configuration is unchanged")
				for _, c := range []struct {
					host        string
					cfg         *tls.Config
					hears, says string
				}{
					{"nobody", &tls.Config{RootCAs: pool(ca)}, "certificate required", "didn't provide a certificate"},
					{"stranger", other.static(t, "a", ca), "certificate", "provide a certificate"},
					{"old", &tls.Config{RootCAs: pool(ca), MaxVersion: tls.VersionTLS12}, "protocol version", "unsupported versions"},
				} {
					nc, err := network.Host(c.host).Dial(t.Context(), "a:1")
					require.NoError(t, err)
					c.cfg.ServerName = "a"
					_, err = tls.Client(nc, c.cfg).Read(make([]byte, 1))
					require.ErrorContains(t, err, c.hears, c.host)
					require.NoError(t, nc.Close())
					synctest.Wait()
					require.NotEmpty(t, log.lines("connection refused", c.says), "%s in %s", c.host, &log.text)
					time.Sleep(20 * time.Second)
				}

				known := ca.static(t, "a")
				known.ServerName, known.ClientSessionCache = "a", tls.NewLRUClientSessionCache(1)
				for range 2 {
					nc, err := network.Host("known").Dial(t.Context(), "a:1")
					require.NoError(t, err)
					conn := tls.Client(nc, known)
					_, err = conn.Write([]byte("X"))
					require.NoError(t, err)
					_, err = conn.Read(make([]byte, 1))
					require.ErrorIs(t, err, io.EOF, "TLS accepts it, and the node closes the connection because it sends no hello")
					require.False(t, conn.ConnectionState().DidResume)
					conn.Close()
				}
			})
		})
	}
}
