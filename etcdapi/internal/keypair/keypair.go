// SPDX-License-Identifier: Apache-2.0

// Package keypair makes keys and their certificates.
package keypair

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
)

// AddHost makes a certificate valid for a host, which is a name or an address.
func AddHost(template *x509.Certificate, host string) {
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	} else {
		template.DNSNames = append(template.DNSNames, host)
	}
}

// New returns a certificate and its new key, as DER. The CA signs the certificate, or the key itself if ca has none.
func New(template *x509.Certificate, ca tls.Certificate) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	parent, signer := template, any(private)
	if ca.Leaf != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	if cert, err = x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer); err != nil {
		return nil, nil, err
	}
	key, err = x509.MarshalPKCS8PrivateKey(private)
	return cert, key, err
}
