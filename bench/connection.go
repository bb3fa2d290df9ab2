package main

import (
	"bufio"
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	exchangeTimeout = holdLimit
	maxAnswerBytes  = 8 << 10
	hpackTableBytes = 4096 // the default of RFC 7541
)

// target is what the connections of a generator ask for, and how. It is shared and never changed.
type target struct {
	address   string
	path      string
	bodyBytes int
	wire      wire
	leaf      []byte // the certificate that the proxy must have
	closing   bool   // the request is to be the last on its connection
	fastOpen  bool   // the first bytes go with the SYN
}

// host is what the client calls the proxy.
func (t target) host() string {
	if t.wire.tls {
		return siteName
	}
	return t.address
}

// connection is one that a generator holds; with only its target set it is not open yet. It is used by one goroutine at a time.
type connection struct {
	target target
	conn   net.Conn
	// Of HTTP/2:
	stream  uint32 // the last one
	fields  *hpack.Decoder
	block   bytes.Buffer // what encoder writes to
	encoder *hpack.Encoder
}

// open makes a connection that can send: the handshake and HTTP/2's preface are done.
func (c *connection) open(ctx context.Context) error {
	if err := c.dial(ctx); err != nil {
		return err
	}
	if c.target.wire.tls {
		encrypted := cryptotls.Client(c.conn, c.target.wire.clientConfig(c.target.leaf))
		c.conn = encrypted
		if err := encrypted.HandshakeContext(ctx); err != nil {
			return err
		}
	}
	if !c.target.wire.h2 {
		return nil
	}
	c.fields, c.encoder = hpack.NewDecoder(hpackTableBytes, nil), hpack.NewEncoder(&c.block)
	var preface bytes.Buffer
	preface.WriteString(http2.ClientPreface)
	if err := http2.NewFramer(&preface, nil).WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return err
	}
	_, err := c.conn.Write(preface.Bytes())
	return err
}

func (c *connection) dial(ctx context.Context) error {
	dialer := net.Dialer{Timeout: exchangeTimeout, KeepAlive: -1}
	if c.target.fastOpen {
		dialer.Control = sendInSYN
	}
	conn, err := dialer.DialContext(ctx, "tcp", c.target.address)
	if err != nil {
		return err
	}
	c.conn = conn
	return conn.SetDeadline(time.Now().Add(exchangeTimeout))
}

// send makes the target's request.
func (c *connection) send() error {
	if c.conn == nil {
		return errors.New("not open")
	}
	if err := c.conn.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return err
	}
	var request bytes.Buffer
	if c.target.wire.h2 {
		if err := c.writeH2(&request); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(&request, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sluice-bench\r\n", c.target.path, c.target.host())
		if c.target.closing {
			request.WriteString("Connection: close\r\n")
		}
		request.WriteString("\r\n")
	}
	_, err := c.conn.Write(request.Bytes())
	return err
}

// receive reads one 200 answer with exactly the target's bytes of body. The upstreams here always send a Content-Length.
func (c *connection) receive() error {
	if c.conn == nil {
		return errors.New("not open")
	}
	if c.target.wire.h2 {
		return c.receiveH2()
	}
	reader := bufio.NewReaderSize(io.LimitReader(c.conn, maxAnswerBytes), maxAnswerBytes)
	statusLine, err := reader.ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(statusLine, "HTTP/1.1 200 ") {
		return fmt.Errorf("status line %q", statusLine)
	}
	length := -1
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return err
		}
		line = strings.TrimSpace(line)
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return err
			}
		}
	}
	if length != c.target.bodyBytes {
		return fmt.Errorf("content length %d, want %d", length, c.target.bodyBytes)
	}
	_, err = io.CopyN(io.Discard, reader, int64(length))
	return err
}

// writeH2 opens the next stream with the target's request.
func (c *connection) writeH2(request *bytes.Buffer) error {
	if c.stream == 0 {
		c.stream = 1
	} else {
		c.stream += 2
	}
	c.block.Reset()
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", c.target.wire.scheme()}, {":authority", c.target.host()},
		{":path", c.target.path}, {"user-agent", "sluice-bench"}} {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			return err
		}
	}
	return http2.NewFramer(request, nil).WriteHeaders(http2.HeadersFrameParam{
		StreamID: c.stream, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: true})
}

// receiveH2 reads to the end of the stream that was opened last, and answers what the connection's keeping demands.
func (c *connection) receiveH2() error {
	framer := http2.NewFramer(c.conn, c.conn)
	framer.ReadMetaHeaders, framer.MaxHeaderListSize = c.fields, maxAnswerBytes
	answered, bodyBytes := false, 0
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				err = framer.WritePing(true, frame.Data)
			}
		case *http2.WindowUpdateFrame:
		case *http2.MetaHeadersFrame:
			if status := frame.PseudoValue("status"); status != "200" || answered {
				return fmt.Errorf("status %q", status)
			}
			answered = true
		case *http2.DataFrame:
			bodyBytes += len(frame.Data())
		default:
			return fmt.Errorf("unexpected frame %s", frame.Header())
		}
		if err != nil {
			return err
		}
		if bodyBytes > c.target.bodyBytes {
			return fmt.Errorf("%d bytes of body, want %d", bodyBytes, c.target.bodyBytes)
		}
		header := frame.Header()
		ends := header.Type == http2.FrameData && header.Flags.Has(http2.FlagDataEndStream) ||
			header.Type == http2.FrameHeaders && header.Flags.Has(http2.FlagHeadersEndStream)
		switch {
		case header.StreamID != 0 && header.StreamID != c.stream && header.Type != http2.FrameWindowUpdate:
			return fmt.Errorf("frame %s, want stream %d", header, c.stream)
		case ends && (!answered || bodyBytes != c.target.bodyBytes):
			return fmt.Errorf("%d bytes of body, want %d", bodyBytes, c.target.bodyBytes)
		case ends:
			return nil
		}
	}
}

// abort resets the connection: ten thousand closed politely would use up the ports for a minute.
func (c *connection) abort() {
	if c.conn == nil {
		return
	}
	raw := c.conn
	if encrypted, ok := raw.(*cryptotls.Conn); ok {
		raw = encrypted.NetConn()
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		tcp.SetLinger(0) //nolint:errcheck // it is closed in any case
	}
	raw.Close() //nolint:errcheck // nothing is lost
}
