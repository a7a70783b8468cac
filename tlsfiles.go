// SPDX-License-Identifier: Apache-2.0

package coterie

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

// LoadTLS returns a configuration for mutual TLS, for [Config.TLS]: caFile has the certificates of
// those who are trusted to sign, certFile this node's certificate and what is between it and theirs,
// keyFile its private key; all in PEM.
//
// It goes on reading the files when they change, so that certificates and CAs are replaced while
// nodes run: a handshake looks whether they have, at most once a second. While what is there cannot
// be read as a whole, as with a file that is half written or a key that is another certificate's,
// the last that could holds on, and the next handshake tries again; what was wrong is told with the
// errors that come of it. Nothing runs between handshakes, and the configuration may be used by many
// nodes. Connections that stand are not checked again. Relative names are made absolute at once, so
// that the process may change its working directory afterwards.
//
// To use it elsewhere, keep its callbacks: they check the other side. It reaches servers by host
// name only, where a node also reaches those by IP address.
//
// Errors: those of reading the files, as fs.ErrNotExist; a file that is no PEM or has parts that are
// damaged; a key that does not match. The text names the file.
func LoadTLS(caFile, certFile, keyFile string) (*tls.Config, error) {
	f := &tlsFiles{names: [...]string{caFile, certFile, keyFile}}
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
	// What is trusted may change, RootCAs may not. So package tls is told not to check servers, and
	// VerifyConnection does what it would have done, by the pool of the moment: the chain, its
	// dates, that it is a server's, and the name that was dialled. There is no way around it: package
	// tls calls it in every handshake, resumed ones, too, and whether the other side has the
	// certificate's key is checked in any case. A server has the pool of the moment as ClientCAs, by
	// GetConfigForClient, and leaves the check to package tls; VerifyConnection is not in that
	// configuration. A server that was made to ignore GetConfigForClient would call it beside its
	// own check, never in place of it: InsecureSkipVerify is for clients alone.
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

// tlsFiles are the three files that a node's TLS is made of, and the last good state of them.
type tlsFiles struct {
	names  [3]string // CAs, certificate, key
	good   atomic.Pointer[tlsState]
	looked atomic.Int64 // when the files were last looked at, in Unix nanoseconds
	busy   atomic.Bool  // somebody looks: others do not wait
}

// A tlsState is what the files had at one time. It is not changed.
type tlsState struct {
	stamps [3]os.FileInfo
	pool   *x509.CertPool
	cert   *tls.Certificate
	newer  error // why what came since cannot be taken, if so
}

// lookInterval is how often the files are looked at, at most.
const lookInterval = time.Second

// current returns the state to use now. It reads the files if they have changed. It takes no lock:
// a file system that hangs holds up one handshake, not all.
func (f *tlsFiles) current() *tlsState {
	now := time.Now().UnixNano()
	// A clock that was set back does not put the look off.
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

func (f *tlsFiles) stat() (stamps [3]os.FileInfo, err error) {
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

// read reads the files. The stamps are taken first: what is written meanwhile is found later.
func (f *tlsFiles) read() (*tlsState, error) {
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
	return &tlsState{stamps: stamps, pool: pool, cert: &cert}, nil
}

// parsePool reads a bundle whole: one that is cut off would have those refused whose CA is missing.
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

// pemBlocks returns the blocks of a file that has at least one, and none that cannot be read: the
// decoder leaves those out.
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

// certificate returns what this node shows. One that has expired is refused in any case: then it is
// of more use to say why there is no newer one.
func (f *tlsFiles) certificate() (*tls.Certificate, error) {
	s := f.current()
	if s.newer != nil && time.Now().After(s.cert.Leaf.NotAfter) {
		return nil, fmt.Errorf("this node's certificate has expired, and the next cannot be read: %w", s.newer)
	}
	return s.cert, nil
}

// forClient makes the configuration of one accepted connection.
func (f *tlsFiles) forClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.RequireAndVerifyClientCert,
		ClientCAs:      f.current().pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.certificate() },
	}, nil
}

// verifyServer checks the certificate of a server as package tls does without InsecureSkipVerify.
func (f *tlsFiles) verifyServer(cs tls.ConnectionState) error {
	if cs.ServerName == "" {
		// Verify would check no name at all.
		return errors.New("coterie: TLS: the name of the server is not known")
	}
	if len(cs.PeerCertificates) == 0 {
		return errors.New("coterie: TLS: the server has shown no certificate")
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
		err = fmt.Errorf("%w; by the last files that could be read: %w", err, s.newer)
	}
	return err
}
