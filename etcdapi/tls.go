// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// A TLS names the files of an endpoint's TLS, and the clients that it accepts. All files are PEM; CRLFile may be DER, too.
type TLS struct {
	CertFile string // the certificate of the endpoint, and the intermediate ones up to a CA; etcd's --cert-file
	KeyFile  string // its private key; --key-file

	// ClientCAFile has the certificates of the CAs of clients. With it every client needs a certificate. It corresponds to
	// --trusted-ca-file with --client-cert-auth.
	ClientCAFile string
	// CRLFile has the revocation lists of those CAs; --client-crl-file. A connection is rejected if a certificate in its
	// chain is revoked by the CA that issued it. A list still applies after the time of its next update.
	CRLFile string
	// AllowedCNs are the common names that the certificate of a client may have. Without any, every name is allowed.
	AllowedCNs []string
	// AllowedHostnames are host names or IP addresses. The certificate of a client must be valid for one of them;
	// --client-cert-allowed-hostname. Without any, every certificate is allowed.
	AllowedHostnames []string

	// MinVersion and MaxVersion bound the version, as --tls-min-version and --tls-max-version do. For MinVersion, 0
	// means TLS 1.2. For MaxVersion, 0 means the newest version of package tls.
	MinVersion, MaxVersion uint16
	// CipherSuites are the suites that an endpoint accepts with TLS 1.2; --cipher-suites. Without any, the suites are
	// those of package tls. TLS 1.3 has suites of its own, which cannot be chosen.
	CipherSuites []uint16
}

// LoadTLS returns the configuration of a server with TLS 1.2 or newer, for [WithTLS] or for a server of the caller.
//
// The configuration follows changes of the files: a handshake checks the files, at most once a second. If the new files
// are not valid together, because one is half written or the key belongs to another certificate, the last good contents
// remain in use, and the next handshake tries again. An expired certificate is not used; the error of the handshake
// then says why there is no newer one. Sessions are not resumed, so that every connection is checked against the
// present files. Existing connections are not checked again. Relative names are made absolute at once.
//
// Errors: those of reading the files, such as fs.ErrNotExist; a file that is not PEM or has damaged parts; a key that
// does not match the certificate; a CRLFile or allowed names without a ClientCAFile; AllowedCNs and AllowedHostnames
// together; versions or cipher suites that no client could meet, and versions below TLS 1.2.
func LoadTLS(t TLS) (*tls.Config, error) {
	if err := t.checkProtocol(); err != nil {
		return nil, err
	}
	if t.ClientCAFile == "" && (t.CRLFile != "" || len(t.AllowedCNs) > 0 || len(t.AllowedHostnames) > 0) {
		return nil, errors.New("etcdapi: TLS: a CRLFile and allowed names need a ClientCAFile")
	}
	if len(t.AllowedCNs) > 0 && len(t.AllowedHostnames) > 0 {
		return nil, errors.New("etcdapi: TLS: AllowedCNs and AllowedHostnames exclude each other")
	}
	t.AllowedCNs, t.AllowedHostnames = slices.Clone(t.AllowedCNs), slices.Clone(t.AllowedHostnames)
	t.CipherSuites = slices.Clone(t.CipherSuites)
	f, err := followTLS(t)
	if err != nil {
		return nil, err
	}
	// A server that ignored GetConfigForClient would still check clients, against the first contents.
	first := f.good.Load().config(&t)
	first.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.current().config(&t), nil }
	return first, nil
}

// checkProtocol returns an error if the versions and cipher suites cannot be used.
func (t *TLS) checkProtocol() error {
	for _, v := range []uint16{t.MinVersion, t.MaxVersion} {
		if v != 0 && v != tls.VersionTLS12 && v != tls.VersionTLS13 {
			return fmt.Errorf("etcdapi: TLS: version %s: an endpoint has TLS 1.2 and 1.3", tls.VersionName(v))
		}
	}
	if t.MaxVersion != 0 && t.MinVersion > t.MaxVersion {
		return fmt.Errorf("etcdapi: TLS: MinVersion %s is above MaxVersion %s", tls.VersionName(t.MinVersion), tls.VersionName(t.MaxVersion))
	}
	if len(t.CipherSuites) > 0 && t.MinVersion == tls.VersionTLS13 {
		return errors.New("etcdapi: TLS: CipherSuites are of TLS 1.2, and MinVersion excludes it")
	}
	suites := append(tls.CipherSuites(), tls.InsecureCipherSuites()...)
	for _, id := range t.CipherSuites {
		known := func(s *tls.CipherSuite) bool {
			return s.ID == id && slices.Contains(s.SupportedVersions, tls.VersionTLS12)
		}
		if !slices.ContainsFunc(suites, known) {
			return fmt.Errorf("etcdapi: TLS: package tls has no cipher suite %s for TLS 1.2", tls.CipherSuiteName(id))
		}
	}
	return nil
}

// config returns the configuration for one connection.
func (l *tlsContents) config(t *TLS) *tls.Config {
	cfg := &tls.Config{
		MinVersion:             max(t.MinVersion, tls.VersionTLS12),
		MaxVersion:             t.MaxVersion,
		CipherSuites:           t.CipherSuites,
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return l.certificate() },
	}
	if l.clientCAs != nil {
		cfg.ClientCAs, cfg.ClientAuth = l.clientCAs, tls.RequireAndVerifyClientCert
		cfg.VerifyConnection = func(cs tls.ConnectionState) error { return l.verifyClient(t, cs) }
	}
	return cfg
}

// verifyClient checks a client after package tls has verified its certificate.
func (l *tlsContents) verifyClient(t *TLS, cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("etcdapi: TLS: the client has no certificate")
	}
	for _, cert := range slices.Concat(append(cs.VerifiedChains, cs.PeerCertificates)...) {
		if l.revoked[revocationOf(cert.RawIssuer, cert.SerialNumber)] {
			return fmt.Errorf("etcdapi: TLS: certificate %x is revoked", cert.SerialNumber)
		}
	}
	leaf := cs.PeerCertificates[0]
	if len(t.AllowedCNs) > 0 && !slices.Contains(t.AllowedCNs, leaf.Subject.CommonName) {
		return fmt.Errorf("etcdapi: TLS: the common name %q is not allowed", leaf.Subject.CommonName)
	}
	valid := func(host string) bool { return leaf.VerifyHostname(host) == nil }
	if len(t.AllowedHostnames) > 0 && !slices.ContainsFunc(t.AllowedHostnames, valid) {
		return errors.New("etcdapi: TLS: the certificate is valid for none of the allowed host names")
	}
	return nil
}

// checkTLS returns an error if an endpoint cannot use a configuration.
func checkTLS(cfg *tls.Config) error {
	switch {
	case cfg == nil:
	case len(cfg.Certificates) == 0 && cfg.GetCertificate == nil && cfg.GetConfigForClient == nil:
		return errors.New("etcdapi: TLS has no certificate")
	case cfg.MaxVersion != 0 && cfg.MaxVersion < tls.VersionTLS12:
		return fmt.Errorf("etcdapi: TLS allows nothing above %s: an endpoint needs TLS 1.2 or newer", tls.VersionName(cfg.MaxVersion))
	}
	return nil
}

// secure returns the configuration that an endpoint uses for one connection: that of the caller, with unsafe
// settings replaced. both reports whether the client can use HTTP/1.1 and HTTP/2.
func secure(cfg *tls.Config, hello *tls.ClientHelloInfo) (one *tls.Config, both bool, err error) {
	if cfg.GetConfigForClient != nil {
		chosen, err := cfg.GetConfigForClient(hello)
		if err != nil {
			return nil, false, err
		}
		if chosen != nil {
			cfg = chosen
		}
	}
	one = cfg.Clone()
	one.GetConfigForClient = nil
	one.MinVersion = max(one.MinVersion, tls.VersionTLS12)
	one.SessionTicketsDisabled = true
	if one.ClientCAs != nil && !one.ClientCAs.Equal(x509.NewCertPool()) {
		one.ClientAuth = tls.RequireAndVerifyClientCert
	}
	both = slices.Contains(hello.SupportedProtos, "http/1.1")
	one.NextProtos = []string{"h2", "http/1.1"}
	return one, both, nil
}
