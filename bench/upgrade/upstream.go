package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const answer = "what the upstream says\n"

// upstream answers, and returns what comes through a tunnel.
type upstream struct {
	addr   string
	server http.Server
	done   chan struct{}
}

func startUpstream() (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot start the upstream: %w", err)
	}
	u := &upstream{addr: l.Addr().String(), done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })
	mux.HandleFunc("/tunnel", echo)
	u.server.Handler = mux
	go func() {
		defer close(u.done)
		_ = u.server.Serve(l)
	}()
	return u, nil
}

func (u *upstream) close() {
	_ = u.server.Close()
	<-u.done
}

// echo agrees to an upgrade (RFC 6455, 4.2.2). What follows is bytes to the gateways, so that frames are spared.
func echo(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // it ends either way
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "+
		base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n"); err == nil {
		_, _ = io.Copy(conn, buffered)
	}
}

// identity is the certificate of all peers, and what clients trust.
type identity struct {
	cert, key, both string // files
	client          *cryptotls.Config
}

func makeIdentity(folder string) (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a.test"}, DNSNames: []string{"a.test"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot write a key: %w", err)
	}
	certText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	i := &identity{cert: filepath.Join(folder, "a.pem"), key: filepath.Join(folder, "a.key"), both: filepath.Join(folder, "both.pem")}
	for name, text := range map[string][]byte{i.cert: certText, i.key: keyText, i.both: append(certText, keyText...)} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return nil, fmt.Errorf("cannot write %q: %w", name, err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certText)
	i.client = &cryptotls.Config{RootCAs: pool, ServerName: "a.test", NextProtos: []string{"http/1.1"}}
	return i, nil
}
