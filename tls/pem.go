package tls

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// maxChain is the most certificates of a pair; public chains have two to four.
const maxChain = 16

// blocks is what stands in a PEM text.
type blocks struct {
	certs []*x509.Certificate
	key   crypto.Signer
	lists []*x509.RevocationList
}

// parsePEM reads at most most certificates and lists and one key. What it does not know is refused, and so is a damaged block,
// which encoding/pem would skip: a chain with a hole would go unseen until a client complains.
func parsePEM(text []byte, most int) (*blocks, error) {
	b := &blocks{}
	n := 0
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		n++
		if err := b.add(block); err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", n, err)
		}
		if len(b.certs)+len(b.lists) > most {
			return nil, fmt.Errorf("more than %d certificates", most)
		}
	}
	if begun := beginnings(text); begun != n {
		return nil, fmt.Errorf("%d PEM blocks begin, but only %d are whole", begun, n)
	}
	return b, nil
}

// beginnings counts the lines that begin a block.
func beginnings(text []byte) (n int) {
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, []byte("-----BEGIN ")) {
			n++
		}
	}
	return n
}

func (b *blocks) add(block *pem.Block) error {
	switch block.Type {
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("cannot parse certificate: %w", err)
		}
		b.certs = append(b.certs, c)
	case "X509 CRL":
		l, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return fmt.Errorf("cannot parse revocation list: %w", err)
		}
		b.lists = append(b.lists, l)
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
		if b.key != nil {
			return errors.New("a second private key")
		}
		if block.Headers["DEK-Info"] != "" {
			return errors.New("the private key is encrypted")
		}
		k, err := ParseKey(block)
		if err != nil {
			return fmt.Errorf("cannot parse private key: %w", err)
		}
		b.key = k
	case "ENCRYPTED PRIVATE KEY":
		return errors.New("the private key is encrypted")
	case "EC PARAMETERS", "DH PARAMETERS":
		// Written by older tools beside keys; nothing here needs them.
	default:
		return fmt.Errorf("neither a certificate nor a private key, but %.40q", block.Type)
	}
	return nil
}

// ParseKey reads a private key that is not encrypted, in any of the forms that tools write: PKCS #8, PKCS #1 or SEC 1.
func ParseKey(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		err = fmt.Errorf("no private key, but %.40q", block.Type)
	}
	if err != nil {
		return nil, err
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("keys of type %T cannot sign", key)
	}
	return s, nil
}
