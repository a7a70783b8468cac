// SPDX-License-Identifier: Apache-2.0

package coterie_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/coterie-kv/coterie"
	"github.com/coterie-kv/coterie/coterietest"
	"github.com/coterie-kv/coterie/internal/memnet"
)

func TestLoadTLSErrors(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key := ca.issue(t, "a")
	_, anotherKey := ca.issue(t, "a")
	for name, c := range map[string]struct {
		ca, cert, key []byte
		file, says    string
	}{
		"empty CA":              {nil, cert, key, "ca.pem", "no PEM block"},
		"CA of another form":    {ca.cert.Raw, cert, key, "ca.pem", "no PEM block"},
		"a key for CA":          {key, cert, key, "ca.pem", "PRIVATE KEY"},
		"CA cut off":            {ca.pem[:len(ca.pem)/2], cert, key, "ca.pem", "no PEM block"},
		"second CA cut off":     {bytes.Join([][]byte{ca.pem, ca.pem[:100]}, nil), cert, key, "ca.pem", "2 PEM blocks begin, and 1 can be read"},
		"first CA damaged":      {append(bytes.Replace(ca.pem, []byte("\nMI"), []byte("\n!!"), 1), ca.pem...), cert, key, "ca.pem", "2 PEM blocks begin"},
		"certificate cut off":   {ca.pem, cert[:100], key, "cert.pem", "no PEM block"},
		"chain cut off":         {ca.pem, append(cert[:len(cert):len(cert)], ca.pem[:100]...), key, "cert.pem", "2 PEM blocks begin"},
		"key cut off":           {ca.pem, cert, key[:100], "key.pem", "no PEM block"},
		"certificate for a key": {ca.pem, cert, cert, "key.pem", "found a certificate"},
		"another's key":         {ca.pem, cert, anotherKey, "key.pem", "does not match"},
	} {
		t.Run(name, func(t *testing.T) {
			files := newKeyFiles(t)
			write(t, files.ca, c.ca)
			write(t, files.cert, c.cert)
			write(t, files.key, c.key)
			_, err := coterie.LoadTLS(files.ca, files.cert, files.key)
			require.ErrorContains(t, err, c.file)
			require.ErrorContains(t, err, c.says)
		})
	}
	files := newKeyFiles(t)
	write(t, files.ca, ca.pem)
	files.issue(t, ca, "a")
	for _, name := range []string{files.ca, files.cert, files.key} {
		content, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.Remove(name))
		_, err = coterie.LoadTLS(files.ca, files.cert, files.key)
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorContains(t, err, name)
		write(t, name, content)
	}
}

// offered returns the certificate and the CAs that a handshake would use now.
func offered(t *testing.T, cfg *tls.Config) (shown *x509.Certificate, trusted *x509.CertPool) {
	t.Helper()
	cert, err := cfg.GetClientCertificate(nil)
	require.NoError(t, err)
	server, err := cfg.GetConfigForClient(nil)
	require.NoError(t, err)
	return cert.Leaf, server.ClientCAs
}

func TestLoadTLSKeepsTheLastGoodFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, next := newAuthority(t, "ca"), newAuthority(t, "next")
		files := newKeyFiles(t)
		write(t, files.ca, ca.pem)
		files.issue(t, ca, "a")
		cfg := files.load(t)
		first, _ := offered(t, cfg)

		// Each step leaves the files for a moment in a state that cannot be used.
		both := bytes.Join([][]byte{ca.pem, next.pem}, nil)
		require.NoError(t, os.WriteFile(files.ca, both[:len(both)-50], 0o600))
		time.Sleep(2 * time.Second)
		_, trusted := offered(t, cfg)
		require.True(t, trusted.Equal(pool(ca)))

		require.NoError(t, os.WriteFile(files.ca, both, 0o600))
		_, trusted = offered(t, cfg)
		require.True(t, trusted.Equal(pool(ca)), "the files are checked once a second")
		time.Sleep(time.Second)
		_, trusted = offered(t, cfg)
		require.True(t, trusted.Equal(pool(ca, next)))

		cert, key := next.issue(t, "a")
		write(t, files.cert, cert) // without its key
		time.Sleep(time.Second)
		shown, _ := offered(t, cfg)
		require.Equal(t, first, shown)
		require.NoError(t, os.Remove(files.key))
		time.Sleep(time.Second)
		shown, _ = offered(t, cfg)
		require.Equal(t, first, shown)
		write(t, files.key, key)
		time.Sleep(time.Second)
		shown, _ = offered(t, cfg)
		require.Equal(t, "next", shown.Issuer.CommonName)
	})
}

// The errors that follow from bad files say what is wrong with them.
func TestLoadTLSReportsBadFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t, "ca")
		files := newKeyFiles(t)
		write(t, files.ca, ca.pem)
		cert, key := ca.issue(t, "a", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) })
		write(t, files.key, key)
		write(t, files.cert, cert)
		cfg := files.load(t)
		require.NoError(t, os.WriteFile(files.ca, []byte("half"), 0o600))
		time.Sleep(time.Second)
		require.NoError(t, cfg.VerifyConnection(shownBy(t, ca, "b")))
		err := cfg.VerifyConnection(shownBy(t, newAuthority(t, "next"), "b"))
		require.ErrorAs(t, err, new(x509.UnknownAuthorityError))
		require.ErrorContains(t, err, files.ca)
		time.Sleep(time.Hour)
		_, err = cfg.GetClientCertificate(nil)
		require.ErrorContains(t, err, "has expired")
		require.ErrorContains(t, err, files.ca)
	})
}

// shownBy returns the state of a connection to a host that has sent a certificate for b.
func shownBy(t *testing.T, a *authority, host string, change ...func(*x509.Certificate)) tls.ConnectionState {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, "b", change...))
	require.NoError(t, err)
	return tls.ConnectionState{ServerName: host, PeerCertificates: []*x509.Certificate{pair.Leaf}}
}

func TestLoadTLSChecksServers(t *testing.T) {
	ca := newAuthority(t, "ca")
	files := newKeyFiles(t)
	write(t, files.ca, ca.pem)
	files.issue(t, ca, "a")
	cfg := files.load(t)
	require.NoError(t, cfg.VerifyConnection(shownBy(t, ca, "b")))
	withIP := func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP("10.0.0.1"), net.ParseIP("::1")} }
	require.NoError(t, cfg.VerifyConnection(shownBy(t, ca, "10.0.0.1", withIP)))
	require.NoError(t, cfg.VerifyConnection(shownBy(t, ca, "::1", withIP)))
	for name, cs := range map[string]tls.ConnectionState{
		"another name":    shownBy(t, ca, "c"),
		"another IP":      shownBy(t, ca, "10.0.0.2", withIP),
		"no name":         shownBy(t, ca, ""),
		"no certificate":  {ServerName: "b"},
		"another CA":      shownBy(t, newAuthority(t, "ca"), "b"),
		"only for client": shownBy(t, ca, "b", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		"expired":         shownBy(t, ca, "b", func(c *x509.Certificate) { c.NotAfter = longAgo.Add(time.Hour) }),
		"of the future":   shownBy(t, ca, "b", func(c *x509.Certificate) { c.NotBefore = farAway.Add(-time.Hour) }),
	} {
		require.Error(t, cfg.VerifyConnection(cs), name)
	}
}

// First the certificates and then the CA are replaced step by step while clients write and read on every node.
// After each step all connections are broken, so that the new files are used at once.
func TestTLSRotationUnderLoad(t *testing.T) {
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	network := memnet.New()
	files, taps, cfgs := make([]keyFiles, 3), make([]*wiretap, 3), make([]coterie.Config, 3)
	rotating := coterietest.WithConfig(func(i int, cfg *coterie.Config) {
		files[i] = newKeyFiles(t)
		write(t, files[i].ca, first.pem)
		files[i].issue(t, first, cfg.Name)
		taps[i] = &wiretap{Network: network.Host(cfg.Name)}
		cfg.Network, cfg.Dir = taps[i], t.TempDir()
		cfg.TLS = files[i].load(t)
		cfgs[i] = *cfg
	})
	coterietest.Run(t, 3, func(t *testing.T, c *coterietest.Cluster) {
		probe := first.static(t, "probe", first, second)
		leader, term := c.Leader(), c.Leader().Status().Term

		ctx, cancel := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		failures := make(chan error, 100)
		calls := make([]int, 3)
		for i, n := range c.Nodes() {
			clients.Go(func() {
				for ctx.Err() == nil {
					key := fmt.Sprint("k", i)
					_, err := n.Put(t.Context(), key, "v")
					if err == nil {
						_, err = n.Get(t.Context(), key)
					}
					if err != nil {
						failures <- err
						return
					}
					calls[i]++
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		step := func(name, issuer string, change func(i int, host string)) {
			t.Helper()
			before := make([]*x509.Certificate, 3)
			for i := range cfgs {
				before[i] = servedBy(t, network, cfgs[i].Addr, probe)
				change(i, cfgs[i].Name)
				time.Sleep(1100 * time.Millisecond) // the nodes change one after the other
				taps[i].breakAll()
			}
			time.Sleep(2 * time.Second)
			for _, tap := range taps {
				tap.breakAll()
			}
			time.Sleep(2 * time.Second)
			for i := range cfgs {
				served := servedBy(t, network, cfgs[i].Addr, probe)
				require.Equal(t, issuer, served.Issuer.CommonName, name)
				if issuer != "" && name[:3] == "new" {
					require.NotEqual(t, before[i].SerialNumber, served.SerialNumber, name)
				}
			}
			require.Empty(t, failures, name)
			require.Equal(t, leader, c.Leader(), name)
			require.Equal(t, term, leader.Status().Term, name)
		}
		step("new certificates of the same CA", "first", func(i int, host string) { files[i].issue(t, first, host) })
		step("both CAs", "first", func(i int, _ string) { write(t, files[i].ca, first.pem, second.pem) })
		step("new certificates of the new CA", "second", func(i int, host string) { files[i].issue(t, second, host) })
		probe = second.static(t, "probe")
		step("only the new CA", "second", func(i int, _ string) { write(t, files[i].ca, second.pem) })
		cancel()
		clients.Wait()
		require.Empty(t, failures)
		for _, n := range calls {
			require.Greater(t, n, 200)
		}

		for i := range cfgs {
			require.Error(t, refusedAt(t, network, cfgs[i].Addr, first.static(t, "probe", second)), "certificates of the old CA are no longer accepted")
		}

		// A process that never read the old files joins.
		i := c.Index(c.Follower())
		c.Stop(i)
		cfgs[i].TLS = files[i].load(t)
		again, err := coterie.Open(t.Context(), cfgs[i])
		require.NoError(t, err)
		require.NoError(t, again.Ready(t.Context()))
		put(t, again, "k", "again")
		require.Equal(t, "again", get(t, leader, "k").KVs[0].Value)
		require.Equal(t, term, leader.Status().Term)
		require.NoError(t, again.Close())
		c.Restart(i)
		sameState(t, c)
	}, rotating)
}

// servedBy returns the certificate that a node shows to a caller with cfg.
func servedBy(t *testing.T, network *memnet.Network, addr string, cfg *tls.Config) *x509.Certificate {
	t.Helper()
	nc, err := network.Host("probe").Dial(t.Context(), addr)
	require.NoError(t, err)
	defer nc.Close()
	host, _, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	cfg = cfg.Clone()
	cfg.ServerName = host
	conn := tls.Client(nc, cfg)
	require.NoError(t, conn.Handshake())
	return conn.ConnectionState().PeerCertificates[0]
}

// refusedAt returns what a caller with cfg reads from a node.
func refusedAt(t *testing.T, network *memnet.Network, addr string, cfg *tls.Config) error {
	t.Helper()
	nc, err := network.Host("probe").Dial(t.Context(), addr)
	require.NoError(t, err)
	defer nc.Close()
	host, _, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	cfg = cfg.Clone()
	cfg.ServerName = host
	_, err = tls.Client(nc, cfg).Read(make([]byte, 1))
	return err
}

func TestLoadTLSSurvivesChdir(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newAuthority(t, "ca")
		files := newKeyFiles(t)
		write(t, files.ca, ca.pem)
		files.issue(t, ca, "a")
		t.Chdir(filepath.Dir(files.ca))
		cfg, err := coterie.LoadTLS("ca.pem", "cert.pem", "key.pem")
		require.NoError(t, err)
		t.Chdir(t.TempDir())
		files.issue(t, ca, "b")
		time.Sleep(time.Second)
		shown, _ := offered(t, cfg)
		require.NoError(t, shown.VerifyHostname("b"))
	})
}
