// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// certificate returns a certificate of a host, for servers and clients that trust nothing else.
func certificate(t testing.TB, host string) transport.TLSInfo {
	t.Helper()
	info, err := transport.SelfCert(zap.NewNop(), t.TempDir(), []string{host + ":0"}, 1, x509.ExtKeyUsageClientAuth)
	require.NoError(t, err)
	info.TrustedCAFile, info.ClientCertAuth = info.CertFile, true
	return info
}

// refused runs a command that gets no connection, and requires a reason, a pattern, in the program's log. It tries several
// times and longer each time: the log has the last error, which may be that of a write on a connection that the other side has
// just closed, and a busy machine needs time for a handshake.
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
	p.refused("authentication handshake failed", "get", "k", "--cacert="+other.CertFile)
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
