package server

import (
	"net"
	"net/http"
	"sync"
	"testing"
)

// serveHTTP has s serve on a port of its own until the test has ended, and gives the address.
func serveHTTP(t testing.TB, s *http.Server) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return ln.Addr().String()
}

// bothProtocols are HTTP/1.1 and, by prior knowledge, HTTP/2, both without TLS.
func bothProtocols() *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// serveConns calls serve for each connection that comes to a port of its own, and closes the connection behind it. The test ends when all
// these calls have: what they wait for besides the connection is ended by a later t.Cleanup, which runs before.
func serveConns(t testing.TB, serve func(c net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer func() { _ = c.Close() }()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		conns.Wait()
	})
	return ln.Addr().String()
}
