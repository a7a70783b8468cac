// SPDX-License-Identifier: Apache-2.0

package coterie

import (
	"crypto/tls"

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
