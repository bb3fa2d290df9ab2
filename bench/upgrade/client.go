package main

import (
	"bufio"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	clientTimeout = 15 * time.Second
	tunnelTexts   = 10
	tunnelPause   = 50 * time.Millisecond
	// afterFailure keeps a client from counting one gap many times.
	afterFailure = 20 * time.Millisecond
)

// kind is what clients do, several of them at once.
type kind struct {
	name string
	all  []*client
}

// client makes exchanges of one kind, and counts those that failed. Read its counts after the clients have stopped.
type client struct {
	addr    string
	tls     *cryptotls.Config // nil: clear text
	once    func(c *client) error
	conn    net.Conn
	read    *bufio.Reader
	made    int
	failed  int
	example error
}

// allKinds are the kinds of clients, n of each.
func allKinds(p *peer, identity *identity, n int) []kind {
	of := func(name, addr string, tls *cryptotls.Config, once func(c *client) error) kind {
		k := kind{name: name}
		for range n {
			k.all = append(k.all, &client{addr: addr, tls: tls, once: once})
		}
		return k
	}
	return []kind{
		of("kept", p.plain, nil, kept), of("new", p.plain, nil, fresh), of("WebSocket", p.plain, nil, tunnel),
		of("kept TLS", p.secure, identity.client, kept), of("new TLS", p.secure, identity.client, fresh), of("WebSocket TLS", p.secure, identity.client, tunnel),
	}
}

// counts are the sums of the clients, and an example of a failure; nil: there is none.
func (k *kind) counts() (made, failed int, example error) {
	for _, c := range k.all {
		made += c.made
		failed += c.failed
		if example == nil {
			example = c.example
		}
	}
	return made, failed, example
}

// startClients runs them until stop is called, which waits for them, and may be called again.
func startClients(kinds []kind, think time.Duration) (stop func()) {
	var over atomic.Bool
	var work sync.WaitGroup
	for _, k := range kinds {
		for _, c := range k.all {
			work.Go(func() { c.run(&over, think) })
		}
	}
	return func() {
		over.Store(true)
		work.Wait()
	}
}

func (c *client) run(over *atomic.Bool, think time.Duration) {
	defer c.hangUp()
	for !over.Load() {
		wait := think
		if err := c.once(c); err == nil {
			c.made++
		} else {
			c.failed++
			c.example = err
			c.hangUp()
			wait = max(wait, afterFailure)
		}
		time.Sleep(wait)
	}
}

func (c *client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// connect gives the client a connection, the one that it has if it has one.
func (c *client) connect() error {
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.addr, clientTimeout)
		if err != nil {
			return fmt.Errorf("cannot connect: %w", err)
		}
		if c.tls != nil {
			conn = cryptotls.Client(conn, c.tls)
		}
		c.conn, c.read = conn, bufio.NewReader(conn)
	}
	return c.conn.SetDeadline(time.Now().Add(clientTimeout))
}

func kept(c *client) error  { return c.get(false) }
func fresh(c *client) error { return c.get(true) }

func (c *client) get(last bool) error {
	if err := c.connect(); err != nil {
		return err
	}
	req, err := http.NewRequest("GET", "http://a.test/", nil)
	if err != nil {
		return err
	}
	req.Close = last
	if err := req.Write(c.conn); err != nil {
		return fmt.Errorf("cannot send: %w", err)
	}
	res, err := http.ReadResponse(c.read, req)
	if err != nil {
		return fmt.Errorf("cannot read the answer: %w", err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || string(body) != answer {
		return fmt.Errorf("%s %.40q: %w", res.Status, body, errors.Join(err, errWrong))
	}
	if last || res.Close {
		c.hangUp()
	}
	return nil
}

var errWrong = errors.New("not what the upstream has sent")

// tunnel upgrades a connection, and has texts returned for half a second: longer than an upgrade, shorter than a drain.
func tunnel(c *client) error {
	c.hangUp()
	if err := c.connect(); err != nil {
		return err
	}
	defer c.hangUp()
	if _, err := io.WriteString(c.conn, "GET /tunnel HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"); err != nil {
		return fmt.Errorf("cannot ask for an upgrade: %w", err)
	}
	res, err := http.ReadResponse(c.read, nil)
	if err != nil {
		return fmt.Errorf("cannot read the answer to an upgrade: %w", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("%s: no upgrade", res.Status)
	}
	tick := time.NewTicker(tunnelPause)
	defer tick.Stop()
	for i := range tunnelTexts {
		text := fmt.Sprintf("text %04d", i)
		if _, err := io.WriteString(c.conn, text); err != nil {
			return fmt.Errorf("cannot send text %d: %w", i, err)
		}
		back := make([]byte, len(text))
		if _, err := io.ReadFull(c.read, back); err != nil || string(back) != text {
			return fmt.Errorf("text %d came back as %q: %w", i, back, errors.Join(err, errWrong))
		}
		<-tick.C
	}
	return nil
}
