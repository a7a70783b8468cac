// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// tlsFiles follows the files of a TLS, and keeps their last good contents. All fields except names are atomic, so that
// no handshake waits for another one.
type tlsFiles struct {
	names  []string // CertFile, KeyFile, ClientCAFile, CRLFile; "" is absent
	good   atomic.Pointer[tlsContents]
	looked atomic.Int64 // the time of the last check of the files, in Unix nanoseconds
	busy   atomic.Bool  // a handshake checks the files
}

// tlsContents are the contents of the files at one time. They are immutable.
type tlsContents struct {
	stamps    []os.FileInfo
	cert      *tls.Certificate
	clientCAs *x509.CertPool // nil without a ClientCAFile
	revoked   map[revocation]bool
	newer     error // why newer contents cannot be used, or nil
}

// A revocation names a certificate that its issuer has revoked.
type revocation struct{ issuer, serial string }

func revocationOf(issuer []byte, serial *big.Int) revocation {
	return revocation{string(issuer), string(serial.Bytes())}
}

// lookInterval is the least time between two checks of the files.
const lookInterval = time.Second

// followTLS reads the files for the first time.
func followTLS(t TLS) (*tlsFiles, error) {
	f := &tlsFiles{names: []string{t.CertFile, t.KeyFile, t.ClientCAFile, t.CRLFile}}
	for i, name := range f.names {
		if name == "" {
			continue
		}
		var err error
		if f.names[i], err = filepath.Abs(name); err != nil {
			return nil, fmt.Errorf("etcdapi: TLS: %w", err)
		}
	}
	first, err := f.read()
	if err != nil {
		return nil, err
	}
	f.good.Store(first)
	return f, nil
}

// current returns the contents to use now. It takes no lock: a file system that hangs delays one handshake, not all.
func (f *tlsFiles) current() *tlsContents {
	now := time.Now().UnixNano()
	// A clock that was set back does not delay the next check.
	if ago := now - f.looked.Load(); ago >= 0 && ago < int64(lookInterval) || !f.busy.CompareAndSwap(false, true) {
		return f.good.Load()
	}
	defer f.busy.Store(false)
	f.looked.Store(now)
	last := f.good.Load()
	stamps, err := f.stat()
	if err == nil && last.newer == nil && slices.EqualFunc(stamps, last.stamps, sameFile) {
		return last
	}
	next, err := f.read()
	if err != nil {
		held := *last
		held.newer = err
		next = &held
	}
	f.good.Store(next)
	return next
}

// stat returns the stamp of each file, or nil if there is no such file.
func (f *tlsFiles) stat() ([]os.FileInfo, error) {
	stamps := make([]os.FileInfo, len(f.names))
	for i, name := range f.names {
		var err error
		if name == "" && i >= 2 { // the certificate and the key are required, and reading them fails
			continue
		}
		if stamps[i], err = os.Stat(name); err != nil {
			return nil, fmt.Errorf("etcdapi: TLS: %w", err)
		}
	}
	return stamps, nil
}

func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// read reads the files. It takes the stamps first, so that the next check finds a change during the read.
func (f *tlsFiles) read() (*tlsContents, error) {
	stamps, err := f.stat()
	if err != nil {
		return nil, err
	}
	var contents [4][]byte
	for i, name := range f.names {
		if name == "" {
			continue
		}
		if contents[i], err = os.ReadFile(name); err != nil {
			return nil, fmt.Errorf("etcdapi: TLS: %w", err)
		}
	}
	c := &tlsContents{stamps: stamps}
	cert, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, fmt.Errorf("etcdapi: TLS: %s with %s: %w", f.names[0], f.names[1], err)
	}
	c.cert = &cert
	if f.names[2] != "" {
		if c.clientCAs, err = parsePool(contents[2]); err != nil {
			return nil, fmt.Errorf("etcdapi: TLS: %s: %w", f.names[2], err)
		}
	}
	if f.names[3] != "" {
		if c.revoked, err = parseCRLs(contents[3]); err != nil {
			return nil, fmt.Errorf("etcdapi: TLS: %s: %w", f.names[3], err)
		}
	}
	return c, nil
}

// parsePool reads the certificates of CAs. It rejects a file that is cut off.
func parsePool(b []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	return pool, eachBlock(b, "CERTIFICATE", func(der []byte) error {
		cert, err := x509.ParseCertificate(der)
		if err == nil {
			pool.AddCert(cert)
		}
		return err
	})
}

// parseCRLs reads revocation lists: one as DER, or several as PEM.
func parseCRLs(b []byte) (map[revocation]bool, error) {
	revoked := map[revocation]bool{}
	add := func(der []byte) error {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		for _, e := range list.RevokedCertificateEntries {
			revoked[revocationOf(list.RawIssuer, e.SerialNumber)] = true
		}
		return nil
	}
	if !strings.Contains(string(b), "-----BEGIN ") {
		return revoked, add(b)
	}
	return revoked, eachBlock(b, "X509 CRL", add)
}

// eachBlock calls fn with the blocks of a PEM file. The file must have at least one, all of one kind, and none that
// cannot be read, which package pem would skip.
func eachBlock(b []byte, kind string, fn func(der []byte) error) error {
	read := 0
	for rest := b; ; read++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != kind {
			return fmt.Errorf("a block of type %q", block.Type)
		}
		if err := fn(block.Bytes); err != nil {
			return err
		}
	}
	if read == 0 {
		return errors.New("no PEM block")
	}
	if begun := strings.Count(string(b), "-----BEGIN "); begun != read {
		return fmt.Errorf("%d PEM blocks begin, and %d can be read", begun, read)
	}
	return nil
}

// certificate returns the certificate of the endpoint. Clients would reject an expired one. In that case the error says
// why there is no newer certificate.
func (l *tlsContents) certificate() (*tls.Certificate, error) {
	if l.newer != nil && time.Now().After(l.cert.Leaf.NotAfter) {
		return nil, fmt.Errorf("the certificate of the endpoint has expired, and the next cannot be read: %w", l.newer)
	}
	return l.cert, nil
}
