package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// clientConn is a raw connection of a script.
type clientConn struct {
	net.Conn
	br      *bufio.Reader
	methods []string // of requests that are not answered yet
}

// sendOptions say what `send` and `recv` do besides the plain thing.
type sendOptions struct {
	to, keep     string
	count        int
	timeout      time.Duration
	halfClose    bool
	abort, reset bool
	expectClose  bool
	refused      bool // a reset will do for a close
	expectOpen   bool
	partial      bool
}

func parseSend(name string, args []string) (*sendOptions, []string, error) {
	o := &sendOptions{}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&o.to, "to", "", "")
	flags.StringVar(&o.keep, "keep", "", "")
	flags.IntVar(&o.count, "n", 1, "")
	timeout := patience
	if name == "table" { // a table that fails must not take minutes
		timeout = 5 * time.Second
	}
	flags.DurationVar(&o.timeout, "timeout", timeout, "")
	flags.BoolVar(&o.halfClose, "close", false, "")
	flags.BoolVar(&o.abort, "abort", false, "")
	flags.BoolVar(&o.reset, "reset", false, "")
	flags.BoolVar(&o.expectClose, "expect-close", false, "")
	flags.BoolVar(&o.expectOpen, "open", false, "")
	flags.BoolVar(&o.partial, "partial", false, "")
	if err := parseFlags(flags, args); err != nil {
		return nil, nil, usageError(fmt.Sprintf("%s: %v", name, err))
	}
	return o, flags.Args(), nil
}

// cmdSend: send [options] FILE opens a connection, writes what FILE says (see readHTTPFile), reads one response, and
// puts it into stdout with LF for CR LF. Options:
//
//	-to ADDRESS    instead of $HTTP
//	-keep NAME     on the connection kept under NAME, which is opened the first time; it stays open for recv and send
//	-n N           reads N responses; 0 reads none
//	-close         shuts the sending side after the last byte
//	-abort, -reset closes, or resets, the connection without reading
//	-expect-close  fails unless the other side ends the connection in order, without another byte, after the responses
//	-open          fails unless the connection is still open afterwards
//	-partial       the response must break off before its end
//	-timeout D     instead of 20s
func cmdSend(c *call) error {
	o, args, err := parseSend("send", c.args)
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return usageError("send [options] FILE")
	}
	segments, err := c.readHTTPFile(args[0])
	if err != nil {
		return err
	}
	conn, err := c.clientConn(o)
	if err != nil {
		return err
	}
	if o.keep == "" {
		defer func() { _ = conn.Close() }()
	}
	return c.exchange(conn, o, segments)
}

func (c *call) clientConn(o *sendOptions) (*clientConn, error) {
	if conn := c.conns[o.keep]; o.keep != "" && conn != nil {
		return conn, nil
	}
	if o.to == "" {
		o.to = c.ts.Getenv("HTTP")
	}
	network, addr := splitAddress(o.to)
	raw, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %q: %w", o.to, err)
	}
	conn := &clientConn{Conn: raw, br: bufio.NewReader(raw)}
	if o.keep != "" {
		c.conns[o.keep] = conn
	}
	return conn, nil
}

// exchange writes and reads at the same time: a response may come before the request has gone out, and the rest of the
// request may then never be taken.
func (c *call) exchange(conn *clientConn, o *sendOptions, segments []segment) error {
	conn.methods = append(conn.methods, requestMethods(joinSegments(segments))...)
	if err := conn.SetDeadline(time.Now().Add(o.timeout)); err != nil {
		return fmt.Errorf("cannot set deadline: %w", err)
	}
	written := make(chan error, 1)
	go func() { written <- conn.writeSegments(segments, o) }()
	if o.abort || o.reset || o.count == 0 {
		if err := <-written; err != nil {
			return fmt.Errorf("cannot send: %w", err)
		}
	}
	if o.abort || o.reset {
		return conn.end(o.reset)
	}
	err := c.receive(conn, o)
	if o.count > 0 {
		_ = conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		<-written
	}
	return err
}

func (conn *clientConn) writeSegments(segments []segment, o *sendOptions) error {
	for _, s := range segments {
		time.Sleep(s.pause) // the script's own \pause
		if _, err := conn.Write(s.data); err != nil {
			return err
		}
	}
	if o.halfClose {
		return conn.Conn.(interface{ CloseWrite() error }).CloseWrite()
	}
	return nil
}

func (conn *clientConn) end(reset bool) error {
	if tcp, ok := conn.Conn.(*net.TCPConn); ok && reset {
		if err := tcp.SetLinger(0); err != nil {
			return err
		}
	}
	return conn.Close()
}

// receive reads o.count responses and then looks at the state of the connection.
func (c *call) receive(conn *clientConn, o *sendOptions) error {
	out := c.stdout()
	for i := range o.count {
		method := ""
		if len(conn.methods) > 0 {
			method, conn.methods = conn.methods[0], conn.methods[1:]
		}
		r, err := readReply(conn.br, method)
		out.WriteString(r.String())
		if o.partial {
			if err == nil {
				return errors.New("the response is complete, but must break off")
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return errors.New("the response neither ends nor breaks off")
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read response %d: %w", i+1, err)
		}
	}
	if o.expectClose {
		rest, err := io.ReadAll(conn.br)
		if len(rest) > 0 {
			return fmt.Errorf("%q follows the last response", rest)
		}
		if refused := o.refused && errors.Is(err, syscall.ECONNRESET); err != nil && !refused {
			return fmt.Errorf("the connection was not closed in order: %w", err)
		}
	}
	if o.expectOpen {
		_ = conn.SetReadDeadline(time.Now().Add(60 * time.Millisecond))
		b, err := conn.br.Peek(1)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("the connection did not stay open and silent: %q, %w", b, err)
		}
	}
	return nil
}

// cmdRecv: recv [options] NAME reads a response on a kept connection, with the options of send.
func cmdRecv(c *call) error {
	o, args, err := parseSend("recv", c.args)
	if err != nil {
		return err
	}
	if len(args) != 1 || c.conns[args[0]] == nil {
		return usageError("recv [options] NAME")
	}
	conn := c.conns[args[0]]
	if err := conn.SetDeadline(time.Now().Add(o.timeout)); err != nil {
		return fmt.Errorf("cannot set deadline: %w", err)
	}
	return c.receive(conn, o)
}

// cmdHangup: hangup [-reset] NAME closes, or resets, a kept connection.
func cmdHangup(c *call) error {
	o, args, err := parseSend("hangup", c.args)
	if err != nil {
		return err
	}
	if len(args) != 1 || c.conns[args[0]] == nil {
		return usageError("hangup [-reset] NAME")
	}
	conn := c.conns[args[0]]
	delete(c.conns, args[0])
	return conn.end(o.reset)
}

// cmdTunnel: tunnel NAME TEXT [ANSWER] sends TEXT on a kept connection that was upgraded to a mirror, and expects ANSWER,
// TEXT unless given, and no more than that.
func cmdTunnel(c *call) error {
	if len(c.args) < 2 || len(c.args) > 3 || c.conns[c.args[0]] == nil {
		return usageError("tunnel NAME TEXT [ANSWER]")
	}
	conn, text, want := c.conns[c.args[0]], c.args[1], c.args[len(c.args)-1]
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("cannot set deadline: %w", err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return fmt.Errorf("cannot send into the tunnel: %w", err)
	}
	back := make([]byte, len(want))
	n, err := io.ReadFull(conn.br, back)
	if err != nil {
		return fmt.Errorf("cannot read from the tunnel: %w after %q", err, back[:n])
	}
	if string(back) != want || conn.br.Buffered() > 0 {
		return fmt.Errorf("the tunnel returned %q and %d bytes more for %q", back, conn.br.Buffered(), text)
	}
	return nil
}

// cmdTable: table [-to ADDRESS] FILE sends the requests of a table, each on a connection of its own, and checks status,
// reason and what becomes of the connection. A case begins with a line
//
//	=== STATUS [REASON] [closed|open]: TITLE
//
// and holds what is sent, written as for send. STATUS "none" means that the connection is closed without a response.
func cmdTable(c *call) error {
	o, args, err := parseSend("table", c.args)
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return usageError("table [-to ADDRESS] FILE")
	}
	text, err := os.ReadFile(c.ts.MkAbs(args[0]))
	if err != nil {
		return fmt.Errorf("cannot read %q: %w", args[0], err)
	}
	cases := strings.Split("\n"+c.expand(string(text)), "\n=== ")[1:]
	if len(cases) == 0 {
		return usageError("there is no case in " + args[0])
	}
	var failed []error
	for i, text := range cases {
		title, request, _ := strings.Cut(text, "\n")
		if i < len(cases)-1 {
			request += "\n" // which the split took
		}
		if err := c.runCase(*o, title, request); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", title, err))
		}
	}
	return errors.Join(failed...)
}

func (c *call) runCase(o sendOptions, title, request string) error {
	expect, _, ok := strings.Cut(title, ":")
	words := strings.Fields(expect)
	if !ok || len(words) == 0 {
		return errors.New("it must begin with STATUS [REASON] [closed|open]: TITLE")
	}
	reason := ""
	for _, word := range words[1:] {
		switch word {
		case "closed":
			o.expectClose = true
		case "open":
			o.expectOpen = true
		default:
			reason = word
		}
	}
	segments, err := compileHTTP(request)
	if err != nil {
		return err
	}
	conn, err := c.clientConn(&o)
	if words[0] == "none" && errors.Is(err, syscall.ECONNRESET) { // refused so soon that connect saw it
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if words[0] == "none" {
		o.count, o.expectClose, o.refused = 0, true, true
	}
	one := &call{script: c.script, ts: c.ts}
	err = one.exchange(conn, &o, segments)
	answer := one.stdout().String()
	switch {
	case o.refused && answer == "" && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)):
		return nil
	case err != nil:
		return fmt.Errorf("%w, after %q", err, answer)
	case words[0] == "none":
		return nil
	case !strings.HasPrefix(answer, "HTTP/1.1 "+words[0]+" "):
		return fmt.Errorf("the answer is %q", answer)
	case reason != "" && !strings.Contains(answer, fmt.Sprintf(`{"error":%q,"status":%s}`, reason, words[0])):
		return fmt.Errorf("the reason is not %q: %q", reason, answer)
	}
	return nil
}
