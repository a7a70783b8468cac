// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/usercode"
)

// checkTLS reports what a configuration lacks for mutual TLS in both directions.
func checkTLS(cfg *tls.Config, bad func(format string, args ...any)) {
	// Without a pool the system's would do, and everyone with a name on the Internet be a node.
	if cfg.RootCAs == nil || cfg.RootCAs.Equal(x509.NewCertPool()) {
		bad("TLS has no RootCAs: nobody would be trusted, or everyone whom the system trusts")
	}
	if len(cfg.Certificates) == 0 && cfg.GetCertificate == nil && cfg.GetConfigForClient == nil {
		bad("TLS has no certificate for those who dial this node: set Certificates or GetCertificate")
	}
	if len(cfg.Certificates) == 0 && cfg.GetClientCertificate == nil {
		bad("TLS has no certificate for those whom this node dials: set Certificates or GetClientCertificate")
	}
	if cfg.InsecureSkipVerify && cfg.VerifyConnection == nil && cfg.VerifyPeerCertificate == nil {
		bad("TLS has InsecureSkipVerify without VerifyConnection: this node would trust whomever it reaches")
	}
	if v := minTLSVersion(cfg); v < tls.VersionTLS12 {
		bad("TLS allows %s: the least is TLS 1.2", tls.VersionName(v))
	}
}

// minTLSVersion is TLS 1.3 unless the configuration says otherwise.
func minTLSVersion(cfg *tls.Config) uint16 {
	return cmp.Or(cfg.MinVersion, min(tls.VersionTLS13, cmp.Or(cfg.MaxVersion, tls.VersionTLS13)))
}

// A tlsNetwork is a layer of mutual TLS around another network. Neither Accept nor Dial shakes
// hands: that happens at the first Read or Write, when package rpc has set the connection's
// deadline, counts it among those that have yet to say who they are, and breaks it when a context
// ends.
type tlsNetwork struct {
	inner          Network
	server, client *tls.Config
	callbacks      *usercode.Calls // of handshakes, in which the functions of Config.TLS run
}

// newTLSNetwork makes a layer by cfg, which has passed checkTLS and is not changed.
func newTLSNetwork(inner Network, cfg *tls.Config) *tlsNetwork {
	base := cfg.Clone()
	base.MinVersion = minTLSVersion(cfg)
	if base.ClientCAs == nil {
		base.ClientCAs = base.RootCAs
	}
	// Nothing is resumed: each connection has the certificates of its time, checked by what is
	// trusted at its time.
	base.SessionTicketsDisabled, base.ClientSessionCache = true, nil
	return &tlsNetwork{
		inner: inner, server: acceptingTLS(base), client: diallingTLS(base), callbacks: &usercode.Calls{Name: "a function of Config.TLS"},
	}
}

// acceptingTLS is the configuration of the accepting side, whoever makes it at each handshake.
func acceptingTLS(base *tls.Config) *tls.Config {
	strict := func(cfg *tls.Config) *tls.Config {
		cfg = cfg.Clone()
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		cfg.MinVersion = max(cfg.MinVersion, base.MinVersion)
		cfg.SessionTicketsDisabled = true
		if cfg.ClientCAs == nil {
			cfg.ClientCAs = cfg.RootCAs
		}
		if cfg.ClientCAs == nil {
			cfg.ClientCAs = base.ClientCAs
		}
		return cfg
	}
	server := strict(base)
	if choose := base.GetConfigForClient; choose != nil {
		server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			cfg, err := choose(hello)
			if cfg == nil || err != nil {
				return nil, err
			}
			return strict(cfg), nil
		}
	}
	return server
}

// diallingTLS is the configuration of the dialling side, but for what depends on the address.
func diallingTLS(base *tls.Config) *tls.Config {
	client := base.Clone()
	if client.GetClientCertificate == nil {
		// A certificate that the other end will not accept is shown nevertheless: it can then say
		// why, where otherwise it would miss one.
		client.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			for i := range base.Certificates {
				if asked.SupportsCertificate(&base.Certificates[i]) == nil {
					return &base.Certificates[i], nil
				}
			}
			return &base.Certificates[0], nil
		}
	}
	return client
}

func (n *tlsNetwork) Listen(addr string) (net.Listener, error) {
	l, err := n.inner.Listen(addr)
	if err != nil {
		return nil, err
	}
	return tlsListener{l, n}, nil
}

type tlsListener struct {
	net.Listener
	network *tlsNetwork
}

func (l tlsListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.network.conn(tls.Server(raw, l.network.server), raw, true), nil
}

func (n *tlsNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	host, _, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	raw, err := n.inner.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	cfg := n.client.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = strings.Cut(host, "%") // a zone is no part of what a certificate says
	}
	if verify := cfg.VerifyConnection; verify != nil {
		// Package tls tells it the name that it sent, and sends no IP address.
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			cs.ServerName = cfg.ServerName
			return verify(cs)
		}
	}
	return n.conn(tls.Client(raw, cfg), raw, false), nil
}

// A tlsConn is a connection with TLS that tells why there is none. Its handshake ends with its deadline, or
// with Close, though a function of Config.TLS may block in it.
type tlsConn struct {
	*tls.Conn
	raw       net.Conn
	accepted  bool
	heard     atomic.Bool // something came through: the two agree
	callbacks *usercode.Calls

	open     context.Context // ends with Close
	end      context.CancelCauseFunc
	deadline atomic.Pointer[time.Time] // of both directions
	once     sync.Once
	shaken   error // of the handshake
}

func (n *tlsNetwork) conn(c *tls.Conn, raw net.Conn, accepted bool) *tlsConn {
	tc := &tlsConn{Conn: c, raw: raw, accepted: accepted, callbacks: n.callbacks}
	tc.open, tc.end = context.WithCancelCause(context.Background())
	return tc
}

func (c *tlsConn) SetDeadline(t time.Time) error {
	c.deadline.Store(&t)
	return c.Conn.SetDeadline(t)
}

// shake shakes hands, once, on a goroutine of its own.
func (c *tlsConn) shake() error {
	c.once.Do(func() {
		ctx := c.open
		if d := c.deadline.Load(); d != nil && !d.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadlineCause(ctx, *d, os.ErrDeadlineExceeded)
			defer cancel()
		}
		c.shaken = c.callbacks.Do(ctx, c.Conn.Handshake)
	})
	return c.shaken
}

func (c *tlsConn) Read(p []byte) (n int, err error) {
	if err = c.shake(); err == nil {
		n, err = c.Conn.Read(p)
	}
	if c.heard.Load() {
		return n, err
	}
	if n > 0 {
		c.heard.Store(true)
	} else if err != nil {
		err = c.explain(err)
	}
	return n, err
}

// Write sends p. The dialling side of TLS 1.3 is done with the handshake before the other one has
// seen its certificate: when that has hung up since, the reason is there to be read.
func (c *tlsConn) Write(p []byte) (n int, err error) {
	if err = c.shake(); err == nil {
		n, err = c.Conn.Write(p)
	}
	if err != nil && !c.accepted && !c.heard.Load() {
		if _, reason := c.Read(make([]byte, 1)); errors.Is(reason, rpc.ErrTLS) {
			err = reason
		}
	}
	return n, err
}

// Close breaks the connection. TLS would say goodbye, and wait for a peer that does not read; nobody
// misses it, since frames have lengths, and an end between two of them says nothing.
func (c *tlsConn) Close() error {
	c.end(net.ErrClosed)
	return c.raw.Close()
}

// explain returns why the two do not agree, and tells the other end if it could not know; what the
// network is to blame for it returns as it is.
func (c *tlsConn) explain(err error) error {
	var record tls.RecordHeaderError
	if errors.As(err, &record) && rpc.InTheClear(record.RecordHeader[:]) {
		if !c.accepted {
			return fmt.Errorf("%w: this node has TLS, the other none", rpc.ErrTLS)
		}
		c.raw.Write(rpc.RefuseTLS(nil))
		c.linger()
		return fmt.Errorf("%w: the caller has no TLS, this node has", rpc.ErrTLS)
	}
	if broken(err) {
		return err
	}
	if c.accepted {
		c.linger()
	}
	return fmt.Errorf("%w: %w", rpc.ErrTLS, err)
}

// broken reports whether a connection failed beneath TLS.
func broken(err error) bool {
	for _, kind := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, os.ErrDeadlineExceeded} {
		if errors.Is(err, kind) {
			return true
		}
	}
	// Package tls gives its alerts the same form.
	var op *net.OpError
	return errors.As(err, &op) && op.Op != "remote error" && op.Op != "local error"
}

const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// linger waits until the other end has hung up, but not for long: a TCP connection that is closed
// before all was read is reset, and the other end may lose what it was told last.
func (c *tlsConn) linger() {
	c.raw.SetDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c.raw, lingerBytes)
}
