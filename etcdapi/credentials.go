// SPDX-License-Identifier: Apache-2.0

package etcdapi

import (
	"context"
	"crypto/tls"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// A handshaken is the credentials of a gRPC server with connections from a splitter: the handshake of TLS is over.
// It passes the certificates of the client to the calls, and the receipt counts the requests of the connection.
type handshaken struct{ receipt *receipt }

func (h handshaken) ServerHandshake(nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	metered := h.receipt.meter(nc)
	tc, ok := nc.(*tls.Conn)
	if !ok {
		return metered, nil, nil
	}
	return metered, credentials.TLSInfo{
		State: tc.ConnectionState(), CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (handshaken) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("etcdapi: credentials of a server")
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (h handshaken) Clone() credentials.TransportCredentials { return h }

func (handshaken) OverrideServerName(string) error { return nil }
