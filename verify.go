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
)

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
func VerifyMemberName(_ context.Context, c Claim) error {
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
func (n *Node) verifyMember(ctx context.Context, nc net.Conn, other rpc.Identity) error {
	conn, ok := nc.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return fmt.Errorf("%w: the connection has no TLS", rpc.ErrCertificate)
	}
	claim := Claim{MemberID(other.Member), conn.ConnectionState(), n.cfg.Cluster}
	if err := n.verifiers.Do(ctx, func() error { return n.cfg.VerifyMember(ctx, claim) }); err != nil {
		return fmt.Errorf("%w: %w", rpc.ErrCertificate, err)
	}
	return nil
}

// warnOfPlainText warns if strangers can reach the node. A Network other than TCP may have its own
// protection.
func (n *Node) warnOfPlainText(l net.Listener) {
	if _, tcp := n.cfg.Network.(tcpNetwork); !tcp || l == nil {
		return
	}
	if addr, ok := l.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
		n.cfg.Logger.Warn("no Config.TLS: any program that reaches the address can pose as a member", "addr", addr.String())
	}
}
