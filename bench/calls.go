package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	childCalls = "calls" // the hidden subcommand of serveCalls

	callsWindow = 1 << 30 // for bodies of a connection; it is never used up in a run
	callsBuffer = 64 << 10
)

// serveCalls is the upstream of calls: HTTP/2 by prior knowledge, and for each request, once it is whole, a small answer with a
// status in its trailers. It does no more than that, so that the proxies are what is busy. It runs in a process of its own until
// ctx ends.
func serveCalls(ctx context.Context, args []string, _ io.Reader, _ io.Writer) error {
	if len(args) != 1 {
		return errors.New("want the address to listen on")
	}
	ln, err := net.Listen("tcp", args[0])
	if err != nil {
		return fmt.Errorf("cannot serve calls: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("cannot serve calls: %w", err)
		}
		go func() { _ = (&callee{conn: conn}).serve() }()
	}
}

// callee is one connection of the upstream.
type callee struct {
	conn    net.Conn
	in      *bufio.Reader
	out     *bufio.Writer
	framer  *http2.Framer
	decoder *hpack.Decoder
	head    []byte // block of an answer's head
	trailer []byte
	path    string // of the request whose head was read last
	seen    string // its X-Forwarded-For
	asked   map[uint32]string
	window  int64 // bytes that the proxy takes now
	waiting []answer
}

// answer is what a stream is to get.
type answer struct {
	stream uint32
	body   string
}

func (c *callee) serve() error {
	defer c.conn.Close() //nolint:errcheck // nobody is told
	c.in, c.out = bufio.NewReaderSize(c.conn, callsBuffer), bufio.NewWriterSize(c.conn, callsBuffer)
	c.framer = http2.NewFramer(c.out, c.in)
	c.framer.SetReuseFrames()
	c.decoder = hpack.NewDecoder(4096, c.field)
	c.asked, c.window = map[uint32]string{}, 65535
	c.head = block(":status", "200", "content-type", "application/grpc")
	c.trailer = block("grpc-status", "0")
	if _, err := io.CopyN(io.Discard, c.in, int64(len(http2.ClientPreface))); err != nil {
		return err
	}
	settings := []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 1000}}
	if err := errors.Join(c.framer.WriteSettings(settings...), c.framer.WriteWindowUpdate(0, callsWindow)); err != nil {
		return err
	}
	for {
		if c.in.Buffered() == 0 {
			if err := c.out.Flush(); err != nil {
				return err
			}
		}
		f, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		if err := c.take(f); err != nil {
			return err
		}
	}
}

// block encodes fields without a table, so that the block is the same on each stream.
func block(fields ...string) []byte {
	var b strings.Builder
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a Builder takes all
	}
	return []byte(b.String())
}

func (c *callee) field(f hpack.HeaderField) {
	switch f.Name {
	case ":path":
		c.path = f.Value
	case "x-forwarded-for":
		c.seen = f.Value
	}
}

func (c *callee) take(f http2.Frame) error {
	ended := false
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.framer.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int64(f.Increment)
			return c.answer()
		}
	case *http2.HeadersFrame:
		c.seen = ""
		if _, err := c.decoder.Write(f.HeaderBlockFragment()); err != nil {
			return err
		}
		c.asked[f.StreamID] = string(fill(callBytes))
		if c.path == pathForwardedFor {
			c.asked[f.StreamID] = c.seen
		}
		ended = f.StreamEnded()
	case *http2.DataFrame:
		ended = f.StreamEnded()
	case *http2.RSTStreamFrame:
		delete(c.asked, f.StreamID)
	}
	if id := f.Header().StreamID; ended {
		c.waiting = append(c.waiting, answer{id, c.asked[id]})
		delete(c.asked, id)
		return c.answer()
	}
	return nil
}

// answer answers those that wait as far as the proxy's window goes. That of each stream is large enough for its answer.
func (c *callee) answer() error {
	for len(c.waiting) > 0 && c.window >= int64(len(c.waiting[0].body)) {
		a := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.window -= int64(len(a.body))
		err := errors.Join(
			c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: a.stream, BlockFragment: c.head, EndHeaders: true}),
			c.framer.WriteData(a.stream, false, []byte(a.body)),
			c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: a.stream, BlockFragment: c.trailer, EndHeaders: true, EndStream: true}))
		if err != nil {
			return err
		}
	}
	return nil
}
