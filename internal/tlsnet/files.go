// SPDX-License-Identifier: Apache-2.0

package tlsnet

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// LoadFiles returns a configuration for mutual TLS that follows three PEM files: see coterie.LoadTLS.
func LoadFiles(caFile, certFile, keyFile string) (*tls.Config, error) {
	f := &files{names: [...]string{caFile, certFile, keyFile}}
	for i, name := range f.names {
		if name == "" {
			continue // reading it fails
		}
		var err error
		if f.names[i], err = filepath.Abs(name); err != nil {
			return nil, fmt.Errorf("coterie: TLS: %w", err)
		}
	}
	first, err := f.read()
	if err != nil {
		return nil, err
	}
	f.good.Store(first)
	// The trusted CAs may change, but RootCAs cannot. So package tls does not check servers, and VerifyConnection
	// makes the same checks with the current pool: the chain, its dates, its use by a server, and the name that was
	// dialled. It cannot be bypassed: package tls calls it in every handshake, resumed ones included, and checks in
	// any case that the other side has the certificate's key. A server gets the current pool as ClientCAs from
	// GetConfigForClient, and package tls makes the checks; VerifyConnection is not in that configuration. A server
	// that ignored GetConfigForClient would call VerifyConnection in addition to its own checks, never in place of
	// them: InsecureSkipVerify concerns only clients.
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    first.pool,
		ClientCAs:  first.pool,
		ClientAuth: tls.RequireAndVerifyClientCert,

		InsecureSkipVerify:   true,
		VerifyConnection:     f.verifyServer,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.certificate() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.certificate() },
		GetConfigForClient:   f.forClient,
	}, nil
}

// files follows the three files of a node's TLS, and keeps their last good contents. All fields but names are
// atomic, so that no handshake waits for another.
type files struct {
	names  [3]string // CAs, certificate, key
	good   atomic.Pointer[loaded]
	looked atomic.Int64 // the time of the last check of the files, in Unix nanoseconds
	busy   atomic.Bool  // a handshake checks the files, and others do not wait for it
}

// A loaded is what the files contained at one time. It is immutable.
type loaded struct {
	stamps [3]os.FileInfo
	pool   *x509.CertPool
	cert   *tls.Certificate
	newer  error // why newer contents cannot be used, or nil
}

// lookInterval is the least time between two checks of the files.
const lookInterval = time.Second

// current returns the contents to use now. It reads the files if they have changed. It takes no lock: a file
// system that hangs delays one handshake, not all.
func (f *files) current() *loaded {
	now := time.Now().UnixNano()
	// A clock that was set back does not delay the next check.
	if ago := now - f.looked.Load(); ago >= 0 && ago < int64(lookInterval) || !f.busy.CompareAndSwap(false, true) {
		return f.good.Load()
	}
	defer f.busy.Store(false)
	f.looked.Store(now)
	last := f.good.Load()
	stamps, err := f.stat()
	if err == nil && last.newer == nil && sameFiles(stamps, last.stamps) {
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

func (f *files) stat() (stamps [3]os.FileInfo, err error) {
	for i, name := range f.names {
		if stamps[i], err = os.Stat(name); err != nil {
			return stamps, fmt.Errorf("coterie: TLS: %w", err)
		}
	}
	return stamps, nil
}

func sameFiles(a, b [3]os.FileInfo) bool {
	for i := range a {
		if !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}

// read reads the files. It takes the stamps first, so that it finds changes during the read the next time.
func (f *files) read() (*loaded, error) {
	stamps, err := f.stat()
	if err != nil {
		return nil, err
	}
	var contents [3][]byte
	for i, name := range f.names {
		if contents[i], err = os.ReadFile(name); err != nil {
			return nil, fmt.Errorf("coterie: TLS: %w", err)
		}
	}
	pool, err := parsePool(contents[0])
	if err != nil {
		return nil, fmt.Errorf("coterie: TLS: %s: %w", f.names[0], err)
	}
	for i, b := range contents[1:] {
		if _, err := pemBlocks(b); err != nil {
			return nil, fmt.Errorf("coterie: TLS: %s: %w", f.names[1+i], err)
		}
	}
	cert, err := tls.X509KeyPair(contents[1], contents[2])
	if err != nil {
		return nil, fmt.Errorf("coterie: TLS: %s with %s: %w", f.names[1], f.names[2], err)
	}
	return &loaded{stamps: stamps, pool: pool, cert: &cert}, nil
}

// parsePool reads a bundle of CAs. It rejects one that is cut off, because nodes with a certificate of a missing CA
// would be refused.
func parsePool(b []byte) (*x509.CertPool, error) {
	blocks, err := pemBlocks(b)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a block of type %q among the certificates of CAs", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(cert)
	}
	return pool, nil
}

// pemBlocks returns the blocks of a file. The file must have at least one, and none that cannot be read, which
// package pem would skip.
func pemBlocks(b []byte) (blocks []*pem.Block, err error) {
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	if len(blocks) == 0 {
		return nil, errors.New("no PEM block")
	}
	if begun := bytes.Count(b, []byte("-----BEGIN ")); begun != len(blocks) {
		return nil, fmt.Errorf("%d PEM blocks begin, and %d can be read", begun, len(blocks))
	}
	return blocks, nil
}

// certificate returns the certificate of this node. If it has expired, it would be refused in any case; then the
// error says why there is no newer one.
func (f *files) certificate() (*tls.Certificate, error) {
	s := f.current()
	if s.newer != nil && time.Now().After(s.cert.Leaf.NotAfter) {
		return nil, fmt.Errorf("this node's certificate has expired, and the next cannot be read: %w", s.newer)
	}
	return s.cert, nil
}

// forClient returns the configuration of one accepted connection.
func (f *files) forClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.RequireAndVerifyClientCert,
		ClientCAs:      f.current().pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.certificate() },
	}, nil
}

// verifyServer checks the certificate of a server as package tls does without InsecureSkipVerify.
func (f *files) verifyServer(cs tls.ConnectionState) error {
	if cs.ServerName == "" {
		// Verify would not check the name.
		return errors.New("coterie: TLS: the name of the server is not known")
	}
	if len(cs.PeerCertificates) == 0 {
		return errors.New("coterie: TLS: the server has sent no certificate")
	}
	s := f.current()
	between := x509.NewCertPool()
	for _, cert := range cs.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: s.pool, Intermediates: between, DNSName: cs.ServerName, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err == nil {
		return nil
	}
	err = &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
	if s.newer != nil {
		err = fmt.Errorf("%w; checked with the last files that could be read: %w", err, s.newer)
	}
	return err
}
