package tls

import (
	"crypto"
	"crypto/rsa"
	cryptotls "crypto/tls"
	"errors"
	"io"
	"net"
)

var errNotSigned = errors.New("cannot sign the handshake: the signature was not made")

// offloadedKey is an RSA key whose signatures are made elsewhere, on behalf of one handshake. Its public key is that of the
// real one, so crypto/tls chooses the same schemes; opts tell PSS from PKCS #1 v1.5. It cannot decrypt: no suite needs it.
type offloadedKey struct {
	key     crypto.Signer
	conn    net.Conn
	offload func(net.Conn, func())
}

// offloaded gives the certificate as it is, or with an RSA key a copy that is bound to conn.
func offloaded(cert *cryptotls.Certificate, conn net.Conn, offload func(net.Conn, func())) *cryptotls.Certificate {
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return cert
	}
	if _, ok := key.Public().(*rsa.PublicKey); !ok {
		return cert
	}
	bound := *cert
	bound.PrivateKey = &offloadedKey{key, conn, offload}
	return &bound
}

// Public implements crypto.Signer.
func (k *offloadedKey) Public() crypto.PublicKey { return k.key.Public() }

// Sign implements crypto.Signer.
func (k *offloadedKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	err = errNotSigned
	k.offload(k.conn, func() { signature, err = k.key.Sign(random, digest, opts) })
	return signature, err
}
