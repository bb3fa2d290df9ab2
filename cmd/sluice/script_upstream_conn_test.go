package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// upstreamConn is the upstream's side of one connection, used by one goroutine.
type upstreamConn struct {
	net.Conn
	u  *upstream
	br *bufio.Reader
}

// upstreamRequest is a request as the upstream received it.
type upstreamRequest struct {
	lines    []string // request line and field lines
	body     []byte   // chunk framing taken off
	trailers []string
}

// fieldTokens returns the values of a field, lower case, with lists split.
func (r *upstreamRequest) fieldTokens(name string) []string {
	var tokens []string
	for _, line := range r.lines[1:] {
		n, v, _ := strings.Cut(line, ":")
		if strings.EqualFold(n, name) {
			for token := range strings.SplitSeq(v, ",") {
				tokens = append(tokens, strings.ToLower(strings.TrimSpace(token)))
			}
		}
	}
	return tokens
}

func (r *upstreamRequest) has(name, token string) bool {
	for _, t := range r.fieldTokens(name) {
		if t == token {
			return true
		}
	}
	return false
}

func (r *upstreamRequest) method() string {
	method, _, _ := strings.Cut(r.lines[0], " ")
	return method
}

// dump shows the request: each line of the head and each trailer behind a mark, then the body.
func (r *upstreamRequest) dump() []byte {
	var b bytes.Buffer
	for _, line := range r.lines {
		fmt.Fprintf(&b, "> %s\n", line)
	}
	b.WriteString(">\n")
	if len(r.body) > 0 {
		b.WriteString(describeBody(r.body))
		b.WriteByte('\n')
	}
	for _, line := range r.trailers {
		fmt.Fprintf(&b, "trailer> %s\n", line)
	}
	return b.Bytes()
}

// readHead reads a request's head. The upstream insists on CR LF: it stands for the strictest server.
func (c *upstreamConn) readHead() (*upstreamRequest, error) {
	lines, err := c.readLines()
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 {
		return nil, c.complain("an empty line before the request")
	}
	c.u.count(countRequests, 1)
	return &upstreamRequest{lines: lines}, nil
}

func (c *upstreamConn) readLines() ([]string, error) {
	var lines []string
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if !strings.HasSuffix(line, "\r\n") {
			return nil, c.complain(fmt.Sprintf("line %q does not end with CR LF", line))
		}
		if line == "\r\n" {
			return lines, nil
		}
		lines = append(lines, line[:len(line)-2])
	}
}

// complain leaves a line in what the upstream saw, so that the script shows what was wrong.
func (c *upstreamConn) complain(what string) error {
	c.u.mu.Lock()
	defer c.u.mu.Unlock()
	fmt.Fprintf(&c.u.seen, "MALFORMED: %s\n", what)
	return malformed(what)
}

// malformed is a request that the upstream does not go on reading; it closes the connection.
type malformed string

func (m malformed) Error() string { return "malformed request: " + string(m) }

// readBody reads the body, counting its bytes as they come, and records the whole request.
func (c *upstreamConn) readBody(r *upstreamRequest) error {
	if r.has("Expect", "100-continue") {
		if err := c.send("HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return err
		}
	}
	err := c.readFramed(r)
	c.u.mu.Lock()
	c.u.seen.Write(r.dump())
	if err != nil {
		fmt.Fprintf(&c.u.seen, "INCOMPLETE: %v\n", err)
	}
	c.u.mu.Unlock()
	return err
}

func (c *upstreamConn) readFramed(r *upstreamRequest) error {
	if r.has("Transfer-Encoding", "chunked") {
		return c.readChunked(r)
	}
	lengths := r.fieldTokens("Content-Length")
	if len(lengths) == 0 {
		return nil
	}
	n, err := strconv.Atoi(lengths[0])
	if err != nil || len(lengths) > 1 {
		return c.complain(fmt.Sprintf("Content-Length %q", lengths))
	}
	return c.readN(r, n)
}

func (c *upstreamConn) readChunked(r *upstreamRequest) error {
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			return noEOF(err)
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(line, "\r\n"), 16, 32)
		if err != nil {
			return c.complain(fmt.Sprintf("chunk size line %q", line))
		}
		if n == 0 {
			r.trailers, err = c.readLines()
			return noEOF(err)
		}
		if err := c.readN(r, int(n)); err != nil {
			return err
		}
		if _, err := c.br.Discard(2); err != nil {
			return noEOF(err)
		}
	}
}

func (c *upstreamConn) readN(r *upstreamRequest, n int) error {
	buf := make([]byte, min(n, 16<<10))
	for n > 0 {
		got, err := c.br.Read(buf[:min(n, len(buf))])
		c.u.count(countBodyBytes, got)
		r.body = append(r.body, buf[:got]...)
		n -= got
		if err != nil {
			return noEOF(err)
		}
	}
	return nil
}

// next reads a whole request, and waits for `release` if the upstream holds its answers.
func (c *upstreamConn) next() (*upstreamRequest, error) {
	r, err := c.readHead()
	if err != nil {
		return nil, err
	}
	if err := c.readBody(r); err != nil {
		return nil, err
	}
	c.u.waitReleased()
	return r, nil
}

// each answers request after request until either side ends the connection.
func (c *upstreamConn) each(answer func(r *upstreamRequest) error) error {
	for {
		r, err := c.next()
		if err != nil {
			return err
		}
		if err := answer(r); err != nil {
			return err
		}
		if r.has("Connection", "close") {
			return nil
		}
	}
}

// drain reads until the peer ends the connection.
func (c *upstreamConn) drain() error {
	_, err := io.Copy(io.Discard, c.br)
	if err == nil {
		err = io.EOF
	}
	return err
}

func (c *upstreamConn) send(text string) error {
	_, err := io.WriteString(c.Conn, text)
	return err
}

// sendAnswer sends the mode's FILE.
func (c *upstreamConn) sendAnswer() error {
	for _, s := range c.u.answer {
		if err := c.pause(s.pause); err != nil {
			return err
		}
		if _, err := c.Write(s.data); err != nil {
			return err
		}
	}
	return nil
}

// pause waits, but not longer than the upstream lives.
func (c *upstreamConn) pause(d time.Duration) error {
	if d == 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.u.quit:
		return net.ErrClosed
	}
}

func (c *upstreamConn) closeWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

// reset ends the connection with RST.
func (c *upstreamConn) reset() error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			return err
		}
	}
	return net.ErrClosed
}
