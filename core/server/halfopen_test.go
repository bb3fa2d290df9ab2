package server

import (
	"bytes"
	cryptotls "crypto/tls"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const halfOpenConfig = `
loops: 1
access_log: { to: off }
listeners:
  http: { bind: "127.0.0.1:0", tls: { timeout: TIMEOUT, certificates: [{ cert: CERTS/a.pem, key: CERTS/a.key }] } }
  plain: { bind: "127.0.0.1:0" }
upstreams: { up: { endpoints: ["UPSTREAM"] } }
routes: [{ match: "/*", to: up }]
`

// halfOpen begins a handshake of which no more comes.
func halfOpen(t *testing.T, addr string, hello []byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write(hello); err != nil {
		t.Fatal(err)
	}
	return c
}

// clientHello gives what a client sends first.
func clientHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	var hello bytes.Buffer
	go func() {
		_ = cryptotls.Client(theirs, &cryptotls.Config{ServerName: "a.test"}).Handshake()
	}()
	if _, err := io.CopyN(&hello, ours, 5); err != nil {
		t.Fatal(err)
	}
	length := int64(hello.Bytes()[3])<<8 | int64(hello.Bytes()[4])
	if _, err := io.CopyN(&hello, ours, length); err != nil {
		t.Fatal(err)
	}
	return hello.Bytes()
}

// memoryInUse is what the process has in use of heap and stacks.
func memoryInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// Some hundreds of handshakes that never end, as many silent ones as with a part of a ClientHello and with a whole one, leave what is
// established alone, on TLS and beside it, and let new clients in. They take little memory, are counted, and gone when their time is up.
func TestHalfOpenHandshakes(t *testing.T) {
	const each, timeout = 200, 4 * time.Second
	const bytesEach = 96 << 10 // of memory on average, the test's own side included
	a := newAuthority(t)
	certs := t.TempDir()
	cert, key := a.issue(false, "a.test")
	a.put(certs, "a", cert, key)
	g := run(t, strings.NewReplacer("TIMEOUT", timeout.String(), "CERTS", certs, "UPSTREAM", mirror(t)).Replace(halfOpenConfig))
	number := func(series string) int {
		n, err := strconv.ParseFloat(g.metric(series), 64)
		if err != nil {
			return -1
		}
		return int(n)
	}
	established := map[string]*http.Client{"h1": a.client(g.addr, false, nil), "h2": a.client(g.addr, true, nil), "plain": a.client(g.bind("plain"), false, nil)}
	serve := func() (worst time.Duration) {
		t.Helper()
		var mu sync.Mutex
		var all sync.WaitGroup
		for name, client := range established {
			url := "https://a.test/"
			if name == "plain" {
				url = "http://a.test/"
			}
			all.Go(func() {
				for range 50 {
					began := time.Now()
					r, got, err := ask(client, url, []byte("hello"))
					took := time.Since(began)
					if err != nil || r.StatusCode != 200 || string(got) != "hello" {
						t.Errorf("%s: %v", name, err)
						return
					}
					mu.Lock()
					worst = max(worst, took)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		return worst
	}
	serve()
	handshakes := `sluice_tls_handshakes_total{listener="http",resumed="no"}`
	before, memory := number(handshakes), memoryInUse()
	hello := clientHello(t)
	began := time.Now()
	var open []net.Conn
	meanwhile := make(chan time.Duration, 1)
	go func() { meanwhile <- serve() }()
	for range each {
		open = append(open, halfOpen(t, g.addr, nil), halfOpen(t, g.addr, hello[:len(hello)/2]), halfOpen(t, g.addr, hello))
	}
	g.eventually("all are in their handshakes", func() bool { return number(`sluice_tls_handshaking{listener="http"}`) == 3*each })
	worst := max(<-meanwhile, serve())
	if fresh, err := cryptotls.Dial("tcp", g.addr, &cryptotls.Config{ServerName: "a.test", RootCAs: a.pool}); err != nil {
		t.Errorf("a new client: %v", err)
	} else {
		fresh.Close()
	}
	more := int64(memoryInUse()) - int64(memory)
	if now := number(`sluice_tls_handshaking{listener="http"}`); now != 3*each || time.Since(began) > timeout {
		t.Logf("the machine was too slow: %d handshakes are left after %v", now, time.Since(began))
	} else {
		t.Logf("while %d half-open handshakes came, and beside them, of %d bytes each, a request took at most %v", now, more/int64(now), worst)
		if more > 3*each*bytesEach {
			t.Errorf("%d half-open handshakes take %d KiB", now, more>>10)
		}
	}
	if worst > time.Second {
		t.Errorf("a request took %v", worst)
	}
	if n := number(handshakes) - before; n != 1 {
		t.Errorf("%d handshakes succeeded, want that of the new client: the established connections were not kept", n)
	}
	for i, c := range open {
		_ = c.SetReadDeadline(time.Now().Add(timeout + patience))
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Fatalf("half-open handshake %d is not closed: %v", i, err)
		}
	}
	if took := time.Since(began); took < timeout {
		t.Errorf("all are closed after %v, before their time is up", took)
	}
	g.eventually("all are counted", func() bool {
		return number(`sluice_tls_handshaking{listener="http"}`) == 0 && number(`sluice_connections_rejected_total{listener="http",reason="tls_timeout"}`) == 3*each
	})
	serve()
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
