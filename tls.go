// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/coterie-kv/coterie/internal/rpc"
	"github.com/coterie-kv/coterie/internal/tlsnet"
)

// LoadTLS returns a configuration for mutual TLS, for [Config.TLS]. All files are PEM: caFile has the
// certificates of the trusted CAs, certFile this node's certificate and the intermediate ones up to a CA,
// keyFile its private key.
//
// The configuration follows changes of the files, so that certificates and CAs can be replaced while nodes run:
// a handshake checks the files, at most once a second. If they cannot be read as a whole, because one is half
// written or the key belongs to another certificate, the last good contents remain in use, and the next
// handshake tries again; the errors that follow from it say what was wrong. Nothing runs between handshakes, and
// many nodes may share the configuration. Existing connections are not checked again. Relative names are made
// absolute at once, so that the process may change its working directory afterwards.
//
// To use the configuration elsewhere, keep its callbacks: they check the other side. It reaches servers by host
// name only, whereas a node also reaches servers by IP address.
//
// Errors: those of reading the files, as fs.ErrNotExist; a file that is not PEM or has damaged parts; a key that
// does not match the certificate. The text names the file.
func LoadTLS(caFile, certFile, keyFile string) (*tls.Config, error) {
	return tlsnet.LoadFiles(caFile, certFile, keyFile)
}

// A Claim is the claim of the node at the other end of a connection to be a certain member. See
// [Config.VerifyMember].
type Claim struct {
	// ID is the member that the node claims to be: a member of the cluster, or a node that wants to join.
	ID MemberID
	// TLS is the state of the connection. Config.TLS has verified its certificates. PeerCertificates[0] is
	// that of the node.
	TLS tls.ConnectionState

	cluster string
}

// Is reports whether the node claims to be the member with a name, which is its Config.Name.
func (c Claim) Is(name string) bool {
	cfg := Config{Cluster: c.cluster}
	return cfg.memberID(name) == c.ID
}

// VerifyMemberName is a [Config.VerifyMember]. It accepts a certificate with the member's name among its DNS
// names (subjectAltName=DNS:name). The node then needs a Config.Name.
func VerifyMemberName(ctx context.Context, c Claim) error {
	if len(c.TLS.PeerCertificates) == 0 {
		return errors.New("it has no certificate")
	}
	names := c.TLS.PeerCertificates[0].DNSNames
	if slices.ContainsFunc(names, c.Is) {
		return nil
	}
	return fmt.Errorf("its DNS names %q are of other members than %v", names, c.ID)
}

// verifyMember asks Config.VerifyMember about the node at the other end of a connection. If the function
// hangs, neither the handshake nor Close waits for it.
func (t *transport) verifyMember(ctx context.Context, nc net.Conn, other rpc.Identity) error {
	conn, ok := nc.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return fmt.Errorf("%w: the connection has no TLS", rpc.ErrCertificate)
	}
	claim := Claim{MemberID(other.Member), conn.ConnectionState(), t.cfg.Cluster}
	if err := t.verifiers.Do(ctx, func() error { return t.cfg.VerifyMember(ctx, claim) }); err != nil {
		return fmt.Errorf("%w: %w", rpc.ErrCertificate, err)
	}
	return nil
}

// warnOfPlainText warns if strangers can reach the node. A Network other than TCP may have its own
// protection.
func (c *Config) warnOfPlainText(l net.Listener) {
	if _, tcp := c.Network.(tcpNetwork); !tcp || l == nil {
		return
	}
	if addr, ok := l.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
		c.Logger.Warn("no Config.TLS: any program that reaches the address can pose as a member", "addr", addr.String())
	}
}
