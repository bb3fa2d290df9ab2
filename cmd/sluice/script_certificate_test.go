package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	"os"
	"time"
)

// cmdCertificate: certificate [-ends D] [-rsa BITS] [-alone] [-key-of FILE] FILE NAME... writes FILE: a certificate for the names, that of its
// authority, and its key. It ends after D, which may be past; -alone leaves the authority out; -key-of takes the key from FILE
// in place of its own, which does not fit then.
func cmdCertificate(c *call) error {
	flags := flag.NewFlagSet("certificate", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	ends := flags.Duration("ends", 90*24*time.Hour, "")
	bits := flags.Int("rsa", 0, "")
	alone := flags.Bool("alone", false, "")
	keyOf := flags.String("key-of", "", "")
	if err := flags.Parse(c.args); err != nil || flags.NArg() < 2 {
		return usageError("certificate [-ends D] [-rsa BITS] [-alone] [-key-of FILE] FILE NAME...")
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(1000 * 24 * time.Hour)}
	root, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return err
	}
	var key crypto.Signer
	if *bits > 0 {
		key, err = rsa.GenerateKey(rand.Reader, *bits)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "leaf"}, DNSNames: flags.Args()[1:],
		NotBefore: time.Now().Add(-900 * time.Hour), NotAfter: time.Now().Add(*ends), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, key.Public(), authorityKey)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if !*alone {
		text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}))
	}
	own := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	if *keyOf != "" {
		if own, err = keyIn(c.ts.MkAbs(*keyOf)); err != nil {
			return err
		}
	}
	text.Write(own)
	if err := os.WriteFile(c.ts.MkAbs(flags.Arg(0)), text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("cannot write %q: %w", flags.Arg(0), err)
	}
	return nil
}

// keyIn gives the key of a file that cmdCertificate wrote.
func keyIn(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "PRIVATE KEY" {
			return pem.EncodeToMemory(block), nil
		}
	}
	return nil, fmt.Errorf("cannot find a key in %q", file)
}
