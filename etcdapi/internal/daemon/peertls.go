// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/coterie-kv/coterie"
)

// securePeers gives the node the certificates for other members, if it listens for them with TLS.
func (s *Settings) securePeers(cfg *coterie.Config) error {
	if !usesTLS(s.Listen.Peer[0]) {
		return nil
	}
	if s.Peer.Auto && s.Peer.CertFile == "" {
		network, err := s.unverifiedNetwork()
		if err != nil {
			return fmt.Errorf("--peer-auto-tls: %w", err)
		}
		cfg.Network = network
		return nil
	}
	tls, err := coterie.LoadTLS(s.Peer.TrustedCAFile, s.Peer.CertFile, s.Peer.KeyFile)
	if err != nil {
		return fmt.Errorf("the certificates for other members: %w", err)
	}
	cfg.TLS = tls
	if len(s.Peer.AllowedCNs) > 0 || len(s.Peer.AllowedHostnames) > 0 {
		cfg.VerifyMember = s.Peer.verifyMember
	}
	return nil
}

// verifyMember accepts members with an allowed name in their certificate.
func (s *Security) verifyMember(_ context.Context, c coterie.Claim) error {
	if len(c.TLS.PeerCertificates) == 0 {
		return errors.New("it has no certificate")
	}
	leaf := c.TLS.PeerCertificates[0]
	if len(s.AllowedCNs) > 0 && !slices.Contains(s.AllowedCNs, leaf.Subject.CommonName) {
		return fmt.Errorf("the common name %q is not in --peer-cert-allowed-cn", leaf.Subject.CommonName)
	}
	valid := func(host string) bool { return leaf.VerifyHostname(host) == nil }
	if len(s.AllowedHostnames) > 0 && !slices.ContainsFunc(s.AllowedHostnames, valid) {
		return errors.New("the certificate is not valid for any name in --peer-cert-allowed-hostname")
	}
	return nil
}

// An unverifiedNetwork is TCP with TLS that does not verify the other side, as etcd's --peer-auto-tls. It protects
// against programs that read the traffic, but not against programs that pretend to be a member.
type unverifiedNetwork struct{ server, client *tls.Config }

func (s *Settings) unverifiedNetwork() (*unverifiedNetwork, error) {
	certFile, keyFile, err := s.selfSigned("peer", s.Listen.Peer)
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	return &unverifiedNetwork{
		server: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: true},
		client: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true},
	}, nil
}

// Listen implements coterie.Network.
func (n *unverifiedNetwork) Listen(addr string) (net.Listener, error) {
	return tls.Listen("tcp", addr, n.server)
}

// Dial implements coterie.Network.
func (n *unverifiedNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := tls.Dialer{Config: n.client}
	return d.DialContext(ctx, "tcp", addr)
}
