package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// upgrading starts a host whose upstream answers one request with 101 and then does what f does.
func upgrading(t *testing.T, idle time.Duration, f func(c *net.TCPConn, r io.Reader) error) (*client, chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	var work sync.WaitGroup
	work.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(patience))
		r := bufio.NewReader(c)
		if _, err = http.ReadRequest(r); err == nil {
			_, err = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
		}
		if err == nil {
			err = f(c.(*net.TCPConn), r)
		}
		done <- err
	})
	t.Cleanup(func() {
		_ = ln.Close()
		work.Wait()
	})
	set := defaults()
	set.Tunnel = idle
	h := newHost(t, 1, set, memberOf(ln, 1))
	c := h.dial(0)
	c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
	head, err := http.ReadResponse(c.reader, nil)
	if err != nil || head.StatusCode != 101 {
		t.Fatalf("got %v, %v", head, err)
	}
	return c, done
}

func ended(t *testing.T, done chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the upstream's side: %v", err)
		}
	case <-time.After(patience):
		t.Error("the upstream's side does not end")
	}
}

// noise gives bytes of which none can be lost, doubled or moved unseen.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0] = byte(seed)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// expect reads want and no more.
func expect(r io.Reader, want []byte) error {
	got, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("got %d bytes, want %d, or others", len(got), len(want))
	}
	return nil
}

// The client ends its way; the upstream reads to the end and answers only then.
func TestTunnelOutlivesTheClientsEnd(t *testing.T) {
	sent, answer := noise(1, 3<<20), noise(2, 3<<20)
	c, done := upgrading(t, patience, func(c *net.TCPConn, r io.Reader) error {
		if err := expect(r, sent); err != nil {
			return err
		}
		_, err := c.Write(answer)
		return err
	})
	c.send(string(sent))
	if err := c.conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := expect(c.reader, answer); err != nil {
		t.Error(err)
	}
	ended(t, done)
}

// The upstream ends its way; what the client still sends arrives.
func TestTunnelOutlivesTheUpstreamsEnd(t *testing.T) {
	sent := noise(1, 3<<20)
	c, done := upgrading(t, patience, func(c *net.TCPConn, r io.Reader) error {
		if _, err := io.WriteString(c, "last words"); err != nil {
			return err
		}
		if err := c.CloseWrite(); err != nil {
			return err
		}
		return expect(r, sent)
	})
	if err := expect(c.reader, []byte("last words")); err != nil {
		t.Fatal(err)
	}
	c.send(string(sent))
	if err := c.conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	ended(t, done)
}

// Both ways are full at once.
func TestTunnelInBothWaysAtOnce(t *testing.T) {
	up, down := noise(1, 8<<20), noise(2, 8<<20)
	both := func(c *net.TCPConn, r io.Reader, send, want []byte) error {
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(send)
			sent <- errors.Join(err, c.CloseWrite())
		}()
		return errors.Join(expect(r, want), <-sent)
	}
	c, done := upgrading(t, patience, func(c *net.TCPConn, r io.Reader) error { return both(c, r, down, up) })
	if err := both(c.conn, c.reader, up, down); err != nil {
		t.Error(err)
	}
	ended(t, done)
}

// A reset on one side is one on the other: it must not look like an end.
func TestTunnelPassesAResetOn(t *testing.T) {
	c, done := upgrading(t, patience, func(_ *net.TCPConn, r io.Reader) error {
		if _, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "reset") {
			return fmt.Errorf("ended with %v", err)
		}
		return nil
	})
	if err := c.conn.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	_ = c.conn.Close()
	ended(t, done)
}

// A tunnel in which bytes pass one way only is not idle, however long the other way is silent.
func TestTunnelIsAliveWhileOneWayIs(t *testing.T) {
	const idle, drops = 1200 * time.Millisecond, 30 // no pause of a busy machine is as long
	c, done := upgrading(t, idle, func(c *net.TCPConn, r io.Reader) error {
		tick := time.NewTicker(idle / 20)
		defer tick.Stop()
		for range drops { // 1.5 times the idle timeout
			<-tick.C
			if _, err := c.Write([]byte{'.'}); err != nil {
				return err
			}
		}
		_, err := io.ReadAll(r) // until the gateway ends it
		return err
	})
	got := make([]byte, drops)
	if _, err := io.ReadFull(c.reader, got); err != nil {
		t.Fatalf("after %q: %v", got, err)
	}
	if n, err := c.reader.Read(got); n != 0 || err == nil { // silent both ways
		t.Errorf("got %d bytes", n)
	}
	ended(t, done)
}

// A tunnel in which bytes drip after a burst is alive: the kernel moves them, and what has moved is known before the call ends.
func TestTunnelThatIsSplicedIsAlive(t *testing.T) {
	const idle, burst, drops = 1200 * time.Millisecond, 3 << 19, 30
	c, done := upgrading(t, idle, func(c *net.TCPConn, r io.Reader) error {
		if _, err := c.Write(make([]byte, burst)); err != nil {
			return err
		}
		tick := time.NewTicker(idle / 20)
		defer tick.Stop()
		for range drops { // 1.5 times the idle timeout
			<-tick.C
			if _, err := c.Write([]byte{'.'}); err != nil {
				return err
			}
		}
		_, err := io.ReadAll(r)
		return err
	})
	if n, err := io.ReadFull(c.reader, make([]byte, burst+drops)); err != nil {
		t.Errorf("after %d bytes behind the burst: %v", n-burst, err)
	}
	ended(t, done)
}
