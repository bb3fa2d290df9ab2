package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// upstreamMode is a way in which a fake upstream behaves.
type upstreamMode struct {
	takes takes
	serve func(c *upstreamConn) error // a whole connection; nil: nobody listens, or with full nobody takes a connection
	full  bool                        // the kernel's queue is full: who connects waits for ever
}

type takes int

const (
	takesNothing takes = iota
	takesFile
	takesStatus
)

func upstreamModes() map[string]upstreamMode {
	return map[string]upstreamMode{
		// Well-behaved servers.
		"echo":         {takes: takesNothing, serve: serveEcho},       // 200, the body shows the request as received
		"status":       {takes: takesStatus, serve: serveStatus},      // that status, always
		"chunked":      {takes: takesNothing, serve: serveChunked},    // like echo, chunked, with a trailer
		"http10":       {takes: takesNothing, serve: serveHTTP10},     // like echo, HTTP/1.0, the body ends with the connection
		"slow-body":    {takes: takesNothing, serve: serveSlowBody},   // five chunks, 20 ms apart
		"early-hints":  {takes: takesNothing, serve: serveEarlyHints}, // 103, then like echo
		"100-continue": {takes: takesNothing, serve: serveContinue},   // 100 although nobody asked, then like echo
		"upgrade":      {takes: takesNothing, serve: serveUpgrade},    // 101 to requests with Upgrade, then every byte comes back
		"raw":          {takes: takesFile, serve: serveRaw},           // FILE to each request
		"raw-close":    {takes: takesFile, serve: serveRawClose},      // FILE, then closes
		"idle-close":   {takes: takesNothing, serve: serveIdleClose},  // like echo once, then closes
		"early":        {takes: takesFile, serve: serveEarly},         // FILE after the head, reads the body all the same
		"stale":        {takes: takesNothing, serve: serveOnePerConn}, // like echo once; a second request is met with RST
		// Broken ones.
		"refuse":      {takes: takesNothing},                       // nobody listens
		"full":        {takes: takesNothing, full: true},           // its queue of connections is full: no connection comes about
		"silent":      {takes: takesNothing, serve: serveSilent},   // reads, never answers
		"deaf":        {takes: takesNothing, serve: serveDeaf},     // reads the head and nothing more, never answers
		"close":       {takes: takesNothing, serve: serveClose},    // FIN after the request
		"reset":       {takes: takesNothing, serve: serveReset},    // RST after the request
		"half-close":  {takes: takesFile, serve: serveHalfClose},   // FILE, FIN, goes on reading
		"stall-after": {takes: takesFile, serve: serveStallAfter},  // FILE, then nothing
		"trickle":     {takes: takesFile, serve: serveTrickle},     // FILE, a byte each millisecond
		"unsolicited": {takes: takesFile, serve: serveUnsolicited}, // like echo, then FILE while the connection is idle
	}
}

func (c *upstreamConn) answerWith(r *upstreamRequest, status int, body []byte) error {
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nX-Upstream: %s\r\nContent-Length: %d\r\n\r\n",
		status, http.StatusText(status), c.u.name, len(body))
	switch {
	case status == http.StatusNoContent || status == http.StatusNotModified:
		return c.send(strings.Replace(head, fmt.Sprintf("Content-Length: %d\r\n", len(body)), "", 1))
	case r.method() == "HEAD":
		return c.send(head)
	}
	return c.send(head + string(body))
}

func (c *upstreamConn) echo(r *upstreamRequest) error {
	return c.answerWith(r, 200, r.dump())
}

func serveEcho(c *upstreamConn) error { return c.each(c.echo) }

func serveStatus(c *upstreamConn) error {
	return c.each(func(r *upstreamRequest) error {
		return c.answerWith(r, c.u.status, []byte("from the upstream\n"))
	})
}

func serveChunked(c *upstreamConn) error {
	return c.each(func(r *upstreamRequest) error {
		dump := r.dump()
		half := len(dump) / 2
		return c.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Upstream: %s\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"+
			"%x\r\n%s\r\n%x\r\n%s\r\n0\r\nX-Sum: %d\r\n\r\n",
			c.u.name, half, dump[:half], len(dump)-half, dump[half:], len(dump)))
	})
}

func serveHTTP10(c *upstreamConn) error {
	r, err := c.next()
	if err != nil {
		return err
	}
	return c.send(fmt.Sprintf("HTTP/1.0 200 OK\r\nX-Upstream: %s\r\n\r\n%s", c.u.name, r.dump()))
}

func serveSlowBody(c *upstreamConn) error {
	return c.each(func(*upstreamRequest) error {
		if err := c.send("HTTP/1.1 200 OK\r\nX-Upstream: " + c.u.name + "\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
			return err
		}
		for i := range 5 {
			if err := c.send(fmt.Sprintf("7\r\npart %d\n\r\n", i)); err != nil {
				return err
			}
			if err := c.pause(20 * time.Millisecond); err != nil {
				return err
			}
		}
		return c.send("0\r\n\r\n")
	})
}

func serveEarlyHints(c *upstreamConn) error {
	return c.each(func(r *upstreamRequest) error {
		if err := c.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"); err != nil {
			return err
		}
		return c.echo(r)
	})
}

func serveContinue(c *upstreamConn) error {
	for {
		r, err := c.readHead()
		if err != nil {
			return err
		}
		if !r.has("Expect", "100-continue") {
			if err := c.send("HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
				return err
			}
		}
		if err := c.readBody(r); err != nil {
			return err
		}
		if err := c.echo(r); err != nil {
			return err
		}
	}
}

func serveUpgrade(c *upstreamConn) error {
	return c.each(func(r *upstreamRequest) error {
		protocols := r.fieldTokens("Upgrade")
		if len(protocols) == 0 || !r.has("Connection", "upgrade") {
			return c.answerWith(r, 426, []byte("upgrade, please\n"))
		}
		err := c.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocols[0] +
			"\r\nX-Upstream: " + c.u.name + "\r\n\r\n")
		if err != nil {
			return err
		}
		if _, err := io.Copy(c.Conn, c.br); err != nil {
			return err
		}
		return io.EOF
	})
}

func serveRaw(c *upstreamConn) error {
	return c.each(func(*upstreamRequest) error { return c.sendAnswer() })
}

func serveRawClose(c *upstreamConn) error {
	if _, err := c.next(); err != nil {
		return err
	}
	return c.sendAnswer()
}

func serveIdleClose(c *upstreamConn) error {
	r, err := c.next()
	if err != nil {
		return err
	}
	if err := c.echo(r); err != nil {
		return err
	}
	return c.pause(20 * time.Millisecond)
}

func serveEarly(c *upstreamConn) error {
	for {
		r, err := c.readHead()
		if err != nil {
			return err
		}
		if err := c.sendAnswer(); err != nil {
			return err
		}
		if err := c.readBody(r); err != nil {
			return err
		}
	}
}

// serveOnePerConn is the race that every keep-alive client must survive: the server gives the connection up just when
// the next request is under way.
func serveOnePerConn(c *upstreamConn) error {
	r, err := c.next()
	if err != nil {
		return err
	}
	if err := c.echo(r); err != nil {
		return err
	}
	if _, err := c.br.ReadByte(); err != nil {
		return err
	}
	return c.reset()
}

func serveSilent(c *upstreamConn) error {
	return c.each(func(*upstreamRequest) error { return nil })
}

// serveDeaf cannot see the peer's end either: it does not read.
func serveDeaf(c *upstreamConn) error {
	if _, err := c.readHead(); err != nil {
		return err
	}
	<-c.u.quit
	return net.ErrClosed
}

func serveClose(c *upstreamConn) error {
	_, err := c.next()
	return err
}

func serveReset(c *upstreamConn) error {
	if _, err := c.next(); err != nil {
		return err
	}
	return c.reset()
}

func serveHalfClose(c *upstreamConn) error {
	if _, err := c.next(); err != nil {
		return err
	}
	if err := c.sendAnswer(); err != nil {
		return err
	}
	if err := c.closeWrite(); err != nil {
		return err
	}
	return c.drain()
}

func serveStallAfter(c *upstreamConn) error {
	if _, err := c.next(); err != nil {
		return err
	}
	if err := c.sendAnswer(); err != nil {
		return err
	}
	return c.drain()
}

func serveTrickle(c *upstreamConn) error {
	return c.each(func(*upstreamRequest) error {
		for _, b := range joinSegments(c.u.answer) {
			if _, err := c.Write([]byte{b}); err != nil {
				return err
			}
			if err := c.pause(time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	})
}

// serveUnsolicited leaves the gateway time to read the answer and to put the connection into its pool.
func serveUnsolicited(c *upstreamConn) error {
	r, err := c.next()
	if err != nil {
		return err
	}
	if err := c.echo(r); err != nil {
		return err
	}
	if err := c.pause(30 * time.Millisecond); err != nil {
		return err
	}
	if err := c.sendAnswer(); err != nil {
		return err
	}
	return c.drain()
}
