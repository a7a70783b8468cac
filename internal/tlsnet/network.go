// SPDX-License-Identifier: Apache-2.0

// Package tlsnet is mutual TLS between nodes: a network around another network, and a configuration that reads
// its certificates from files while nodes run.
package tlsnet

import (
	"context"
	"crypto/tls"
	"net"
	"strings"

	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/usercode"
)

// A Network is mutual TLS around another network. Neither Accept nor Dial does the handshake. It happens at the
// first Read or Write: then package rpc has set the deadline of the connection, counts it among the connections
// without a hello, and breaks it when a context ends.
type Network struct {
	inner          rpc.Network
	server, client *tls.Config
	callbacks      *usercode.Calls // handshakes, in which the functions of Config.TLS run
}

// New returns a Network with a configuration that has passed Check. It does not change cfg.
func New(inner rpc.Network, cfg *tls.Config) *Network {
	base := cfg.Clone()
	base.MinVersion = minVersion(cfg)
	if base.ClientCAs == nil {
		base.ClientCAs = base.RootCAs
	}
	// No session is resumed: each connection uses the certificates of its time, and checks the other's against
	// the CAs of its time.
	base.SessionTicketsDisabled, base.ClientSessionCache = true, nil
	return &Network{
		inner: inner, server: accepting(base), client: dialling(base), callbacks: &usercode.Calls{Name: "a function of Config.TLS"},
	}
}

// accepting returns the configuration of the accepting side. It is as strict if GetConfigForClient chooses
// another one at each handshake.
func accepting(base *tls.Config) *tls.Config {
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

// dialling returns the configuration of the dialling side without the parts that depend on the address.
func dialling(base *tls.Config) *tls.Config {
	client := base.Clone()
	if client.GetClientCertificate == nil {
		// A certificate that the other end will not accept is sent nevertheless. The other end can then say why it
		// refuses; otherwise it could only say that there is none.
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

// Listen implements rpc.Network.
func (n *Network) Listen(addr string) (net.Listener, error) {
	l, err := n.inner.Listen(addr)
	if err != nil {
		return nil, err
	}
	return listener{l, n}, nil
}

type listener struct {
	net.Listener
	network *Network
}

func (l listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.network.conn(tls.Server(raw, l.network.server), raw, true), nil
}

// Dial implements rpc.Network.
func (n *Network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	raw, err := n.inner.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	cfg := n.client.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = strings.Cut(host, "%") // certificates have addresses without a zone
	}
	if verify := cfg.VerifyConnection; verify != nil {
		// Package tls passes the name that it sent, and it sends no IP address.
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			cs.ServerName = cfg.ServerName
			return verify(cs)
		}
	}
	return n.conn(tls.Client(raw, cfg), raw, false), nil
}
