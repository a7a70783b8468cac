// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/coterie-kv/coterie/etcdapi/internal/keypair"
)

// The names of the files.
const (
	authorityName = "ca"
	certSuffix    = ".pem"
	keySuffix     = "-key" // before certSuffix
)

// backdated is how much the clock of a machine may be behind.
const backdated = 5 * time.Minute

// An authority is a CA with its key, and the directory of the certificates.
type authority struct {
	dir  string
	pair tls.Certificate
}

// openAuthority returns the CA of a directory. It makes one if there is none.
func openAuthority(dir string, validity time.Duration) (*authority, error) {
	a := &authority{dir: dir}
	var err error
	a.pair, err = tls.LoadX509KeyPair(a.files(authorityName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return a, a.found(validity)
	case err != nil:
		return nil, err
	case !a.pair.Leaf.IsCA:
		return nil, fmt.Errorf("the certificate in %s is not that of a CA", filepath.Join(dir, authorityName+certSuffix))
	}
	return a, nil
}

func (a *authority) files(name string) (cert, key string) {
	return filepath.Join(a.dir, name+certSuffix), filepath.Join(a.dir, name+keySuffix+certSuffix)
}

// found makes the CA.
func (a *authority) found(validity time.Duration) error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	template := newTemplate("coteried CA", validity)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if err := a.write(authorityName, template); err != nil {
		return err
	}
	var err error
	a.pair, err = tls.LoadX509KeyPair(a.files(authorityName))
	return err
}

// issue makes the certificate of a subject.
func (a *authority) issue(s subject, validity time.Duration) error {
	template := newTemplate(s.name, validity)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	// Members are also clients of each other.
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(s.hosts) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range s.hosts {
		keypair.AddHost(template, h)
	}
	if end := a.pair.Leaf.NotAfter; template.NotAfter.After(end) {
		template.NotAfter = end
	}
	return a.write(s.name, template)
}

func newTemplate(name string, validity time.Duration) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{"coteried"}, CommonName: name},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(validity),
	}
}

// serial returns a random number of 127 bits: serial numbers are unique, positive and at most 20 bytes long.
func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // it never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

// write makes a certificate and its key. The first certificate signs itself.
func (a *authority) write(name string, template *x509.Certificate) error {
	cert, key, err := keypair.New(template, a.pair)
	if err != nil {
		return err
	}
	certFile, keyFile := a.files(name)
	for _, f := range []string{certFile, keyFile} { // check both, so that no key gets the certificate of another key
		if _, err := os.Lstat(f); err == nil {
			return fmt.Errorf("%s exists, and is not replaced: name another --dir, or remove it together with its key or certificate", f)
		}
	}
	if err := create(keyFile, 0o600, "PRIVATE KEY", key); err != nil {
		return err
	}
	return create(certFile, 0o644, "CERTIFICATE", cert)
}

// create makes a file that must not exist.
func create(name string, mode fs.FileMode, kind string, der []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	return errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Close())
}
