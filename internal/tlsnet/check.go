// SPDX-License-Identifier: Apache-2.0

package tlsnet

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
)

// Check calls bad for everything that a configuration lacks for mutual TLS in both directions.
func Check(cfg *tls.Config, bad func(format string, args ...any)) {
	// Package tls would use the system's pool, and any host with a certificate of a public CA could be a node.
	if cfg.RootCAs == nil || cfg.RootCAs.Equal(x509.NewCertPool()) {
		bad("TLS has no RootCAs: no node would be trusted, or every host with a certificate of a public CA")
	}
	if len(cfg.Certificates) == 0 && cfg.GetCertificate == nil && cfg.GetConfigForClient == nil {
		bad("TLS has no certificate for nodes that dial this one: set Certificates or GetCertificate")
	}
	if len(cfg.Certificates) == 0 && cfg.GetClientCertificate == nil {
		bad("TLS has no certificate for nodes that this one dials: set Certificates or GetClientCertificate")
	}
	if cfg.InsecureSkipVerify && cfg.VerifyConnection == nil && cfg.VerifyPeerCertificate == nil {
		bad("TLS has InsecureSkipVerify without VerifyConnection: this node would trust every host that it reaches")
	}
	if v := minVersion(cfg); v < tls.VersionTLS12 {
		bad("TLS allows %s: the least is TLS 1.2", tls.VersionName(v))
	}
}

// minVersion returns TLS 1.3 unless the configuration says otherwise.
func minVersion(cfg *tls.Config) uint16 {
	return cmp.Or(cfg.MinVersion, min(tls.VersionTLS13, cmp.Or(cfg.MaxVersion, tls.VersionTLS13)))
}
