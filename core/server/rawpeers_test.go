package server

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

// end is how every body of the tests ends, so that a peer knows the end of a message without reading its head.
const end = "the end"

// bodyOf gives so many bytes that end in end.
func bodyOf(size int) string {
	b := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
	copy(b[size-len(end):], end)
	return string(b)
}

// fixedUpstream answers whatever ends in one of its terminators with the same bytes, on as many connections as come. A
// request costs it no memory.
type fixedUpstream struct {
	listener net.Listener
	answer   []byte
	ends     [][]byte
	each     func() // called for each request; nil: nothing is
	conns    sync.WaitGroup
}

func newFixedUpstream(t testing.TB, answer string, each func(), ends ...string) *fixedUpstream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &fixedUpstream{listener: ln, answer: []byte(answer), each: each}
	for _, e := range ends {
		u.ends = append(u.ends, []byte(e))
	}
	u.conns.Add(1)
	go u.accept()
	t.Cleanup(func() { // the gateway, started later, has ended and closed its connections by now
		_ = ln.Close()
		u.conns.Wait()
	})
	return u
}

func (u *fixedUpstream) addr() string { return u.listener.Addr().String() }

func (u *fixedUpstream) accept() {
	defer u.conns.Done()
	for {
		c, err := u.listener.Accept()
		if err != nil {
			return
		}
		u.conns.Add(1)
		go u.serve(c)
	}
}

func (u *fixedUpstream) serve(c net.Conn) {
	defer u.conns.Done()
	defer func() { _ = c.Close() }()
	buf := make([]byte, 256<<10)
	for got := 0; ; {
		n, err := c.Read(buf[got:])
		if err != nil {
			return
		}
		got += n
		for _, e := range u.ends {
			if bytes.HasSuffix(buf[:got], e) {
				got = 0
				if u.each != nil {
					u.each()
				}
				if _, err := c.Write(u.answer); err != nil {
					return
				}
				break
			}
		}
	}
}

// fixedClient sends the same request again and again on one connection. A request costs it no memory.
type fixedClient struct {
	conn   net.Conn
	parts  [][]byte // of the request, written one by one
	starts []byte   // of the answer
	ends   []byte   // likewise
	buf    []byte
}

func newFixedClient(t testing.TB, addr, ends string, parts ...string) *fixedClient {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	f := &fixedClient{conn: c, starts: ok200, ends: []byte(ends), buf: make([]byte, 256<<10)}
	for _, p := range parts {
		f.parts = append(f.parts, []byte(p))
	}
	return f
}

// exchange makes n requests, one after the other.
func (f *fixedClient) exchange(n int) error {
	for i := range n {
		for _, p := range f.parts {
			if _, err := f.conn.Write(p); err != nil {
				return fmt.Errorf("cannot send request %d: %w", i, err)
			}
		}
		got := 0
		for !bytes.HasSuffix(f.buf[:got], f.ends) {
			if got == len(f.buf) {
				return fmt.Errorf("answer %d does not end: %q", i, f.buf[:200])
			}
			m, err := f.conn.Read(f.buf[got:])
			if err != nil {
				return fmt.Errorf("cannot read answer %d after %q: %w", i, f.buf[:got], err)
			}
			got += m
		}
		if !bytes.HasPrefix(f.buf[:got], f.starts) {
			return fmt.Errorf("answer %d is %q", i, f.buf[:min(got, 200)])
		}
	}
	return nil
}

var ok200 = []byte("HTTP/1.1 200 ")
