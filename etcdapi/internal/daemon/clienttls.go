// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/tlsutil"

	"github.com/coterie-kv/coterie/etcdapi"
	"github.com/coterie-kv/coterie/etcdapi/internal/selfsigned"
)

// clientTLS returns the configuration of listeners with TLS, or nil if there is none.
func (s *Settings) clientTLS() (*tls.Config, error) {
	c := s.Client
	if c.Auto && c.CertFile == "" {
		var err error
		if c.CertFile, c.KeyFile, err = s.selfSigned("client", append(s.Listen.Client, s.Listen.ClientHTTP...)); err != nil {
			return nil, fmt.Errorf("--auto-tls: %w", err)
		}
	}
	if c.CertFile == "" {
		return nil, nil
	}
	least, most, suites, err := s.tlsBounds()
	if err != nil {
		return nil, err
	}
	cfg, err := etcdapi.LoadTLS(etcdapi.TLS{
		CertFile: c.CertFile, KeyFile: c.KeyFile, ClientCAFile: c.TrustedCAFile, CRLFile: c.CRLFile,
		AllowedCNs: c.AllowedCNs, AllowedHostnames: c.AllowedHostnames,
		MinVersion: least, MaxVersion: most, CipherSuites: suites,
	})
	if err != nil {
		return nil, fmt.Errorf("the certificates for clients: %w", err)
	}
	return cfg, nil
}

// selfSigned returns the files of a self-signed certificate for listeners. They stay in the data directory, as in etcd.
func (s *Settings) selfSigned(kind string, urls urlList) (certFile, keyFile string, err error) {
	hosts := []string{"localhost"}
	for _, u := range urls {
		if !isUnix(u) {
			hosts = append(hosts, u.Host)
		}
	}
	const year = 365 * 24 * time.Hour
	return selfsigned.Files(filepath.Join(s.DataDir, "fixtures", kind), hosts, time.Duration(s.SelfSignedYears)*year)
}

// tlsBounds returns the versions and the cipher suites of TLS for clients. 0 leaves the choice to package tls.
func (s *Settings) tlsBounds() (least, most uint16, suites []uint16, err error) {
	if least, err = tlsutil.GetTLSVersion(s.TLSMin); err != nil {
		return 0, 0, nil, fmt.Errorf("--tls-min-version: %w", err)
	}
	if most, err = tlsutil.GetTLSVersion(s.TLSMax); err != nil {
		return 0, 0, nil, fmt.Errorf("--tls-max-version: %w", err)
	}
	if suites, err = tlsutil.GetCipherSuites(s.CipherSuites); err != nil {
		return 0, 0, nil, fmt.Errorf("--cipher-suites: %w", err)
	}
	return least, most, suites, nil
}

// checkTLS rejects bounds that exclude each other, as etcd does.
func (s *Settings) checkTLS() error {
	least, most, suites, err := s.tlsBounds()
	switch {
	case err != nil:
		return err
	case most != 0 && least > most:
		return fmt.Errorf("min version (%s) is greater than max version (%s)", s.TLSMin, s.TLSMax)
	case least == tls.VersionTLS13 && len(suites) > 0:
		return errors.New("cipher suites cannot be configured when only TLS1.3 is enabled")
	}
	return nil
}
