// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/coterie-kv/coterie"
)

// securePeers gives the node the certificates for other members, if it listens for them with TLS.
func (s *Settings) securePeers(cfg *coterie.Config) error {
	if !usesTLS(s.Listen.Peer[0]) {
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

// verifyMember accepts members whose certificate has an allowed name.
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
		return errors.New("the certificate is valid for no name in --peer-cert-allowed-hostname")
	}
	return nil
}
