// SPDX-License-Identifier: Apache-2.0

// Package selfsigned makes the certificates of etcd's --auto-tls and --peer-auto-tls. Each is its own CA, so clients
// cannot verify the server, and TLS only encrypts their traffic.
package selfsigned

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/coterie-kv/coterie/etcdapi/internal/keypair"
)

// The names of the files in a directory, as in etcd.
const (
	certName = "cert.pem"
	keyName  = "key.pem"
)

// backdate is how far the clock of a client may be behind.
const backdate = time.Hour

// Files returns the files of a certificate and its key in a directory. It makes them if they do not exist or if the
// certificate has expired. hosts are names, addresses, or either with a port. The key is readable by the owner alone.
//
// An existing pair remains in use if its hosts differ, as in etcd: a client may have pinned it.
func Files(dir string, hosts []string, validity time.Duration) (certFile, keyFile string, err error) {
	certFile, keyFile = filepath.Join(dir, certName), filepath.Join(dir, keyName)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	switch {
	case err == nil && time.Now().Before(pair.Leaf.NotAfter):
		return certFile, keyFile, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", "", fmt.Errorf("the certificate in %s: %w", dir, err)
	}
	if len(hosts) == 0 || validity <= 0 {
		return "", "", errors.New("a certificate needs a host and a validity")
	}
	cert, key, err := create(hosts, validity)
	if err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", err
	}
	// Remove the certificate first and write it last, so that no crash leaves a pair that does not match.
	if err := os.Remove(certFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", err
	}
	if err := replace(keyFile, "PRIVATE KEY", key); err != nil {
		return "", "", err
	}
	return certFile, keyFile, replace(certFile, "CERTIFICATE", cert)
}

// create returns a certificate and its key, as DER.
func create(hosts []string, validity time.Duration) (cert, key []byte, err error) {
	now := time.Now()
	template := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{"coterie"}},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(validity),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		keypair.AddHost(template, host)
	}
	return keypair.New(template, tls.Certificate{})
}

// replace writes a file under a temporary name, and renames it when it is complete.
func replace(name, kind string, der []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*") // readable by the owner alone
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename
	err = errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
