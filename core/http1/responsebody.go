package http1

import (
	"bytes"
	"io"

	"github.com/sluice-gateway/sluice/core"
)

// responseBody draws the body of an answer from the upstream's connection. Its buffer holds the head before it.
type responseBody struct {
	client     *Client
	x          *core.Exchange
	buf        []byte // borrowed; nil: nothing is buffered
	start, end int    // received and not yet taken
	headed     bool   // the answer's head stands in buf, and is still looked at when the answer has ended
	kind       framing
	left       int64 // bytes to come with Content-Length
	done       bool
	decoder    ChunkDecoder
}

// begin makes b the body of the answer whose head has just been read.
func (b *responseBody) begin(x *core.Exchange) {
	m := &x.Response
	b.x, b.done, b.left, b.headed = x, false, 0, true
	switch {
	case x.Request.Method == core.MethodHead || m.Status < 200 || m.Status == 204 || m.Status == 304:
		b.kind = framingNone
	case x.Request.Method == core.MethodConnect && m.Status/100 == 2:
		b.kind = framingNone
	case m.Chunked:
		b.kind = framingChunked
		b.decoder.Reset()
	case m.ContentLength >= 0:
		b.kind, b.left = framingLength, m.ContentLength
	default:
		b.kind, m.Close = framingClose, true
	}
	if b.kind == framingNone || b.kind == framingLength && b.left == 0 {
		b.done = true
		b.client.seen(x)
		return
	}
	m.Body = b
}

// Ready says whether bytes of the body are at hand, here or in the kernel.
func (b *responseBody) Ready() bool { return b.start < b.end || b.client.conn.Readable() }

var lastChunk = []byte("0\r\n\r\n")

// Finished says that what stands behind the head is the end of the body.
func (b *responseBody) Finished() bool {
	return !b.done && b.kind == framingChunked && b.decoder.atSize() && bytes.Equal(b.buf[b.start:b.end], lastChunk)
}

// Next gives the next piece of the body.
func (b *responseBody) Next() (core.Piece, error) {
	if b.done {
		return core.Piece{}, io.EOF
	}
	if b.start == b.end {
		if b.x.Over() && b.client.conn.Readable() { // which no wait would find out
			return core.Piece{}, core.ErrTakenSlowly
		}
		err := b.more(b.long())
		if err == io.EOF && b.kind == framingClose {
			b.finish()
			return core.Piece{Buf: b.buf, Start: headRoom, End: headRoom, Last: true}, nil
		}
		if failure := b.client.upload.failure; err != nil && failure != nil {
			return core.Piece{}, failure
		}
		if err != nil {
			return core.Piece{}, upstreamError(b.x, err, core.ErrIdleTimeout)
		}
	}
	p := core.Piece{Buf: b.buf, Start: b.start}
	switch b.kind {
	case framingLength:
		n := int(min(int64(b.end-b.start), b.left))
		b.start += n
		b.left -= int64(n)
		p.End, p.Last = b.start, b.left == 0
	case framingClose:
		b.start = b.end
		p.End = b.end
	case framingChunked:
		start, end, consumed, done, err := b.decoder.Decode(b.buf[b.start:b.end])
		if err != nil {
			return p, errBadChunks
		}
		p.Start, p.End, p.Last = b.start+start, b.start+end, done
		b.start += consumed
		if done {
			b.x.Response.Trailer = b.decoder.Trailer()
		}
	}
	if p.Last {
		b.finish()
	}
	return p, nil
}

func (b *responseBody) finish() {
	b.done = true
	b.client.seen(b.x)
}

// more reads behind what is there, and waits for it; without bytes at hand no buffer is held meanwhile.
func (b *responseBody) more(long bool) error {
	c := b.client.conn
	if b.start == b.end && (!c.Readable() || long) {
		b.leaveHead()
		b.release()
	}
	if err := c.WaitRead(); err != nil {
		return err
	}
	if b.buf == nil {
		b.buf = borrow(c.Loop(), long)
	}
	switch {
	case b.start == b.end:
		b.start, b.end = headRoom, headRoom
	case b.end == len(b.buf)-core.PieceTail: // behind interim answers: into no room nothing would be read, for ever
		b.start, b.end = headRoom, headRoom+copy(b.buf[headRoom:], b.buf[b.start:b.end])
	}
	n, err := c.Read(b.buf[b.end : len(b.buf)-core.PieceTail])
	b.end += n
	return err
}

// long says whether much of the body is still to come; without a length the past stands for the future.
func (b *responseBody) long() bool {
	return b.left >= longBytes || b.kind != framingLength && b.x.Sent.ResponseBody >= longBytes
}

// Release gives the buffer back if all in it has been taken.
func (b *responseBody) Release() {
	if b.start == b.end {
		b.leaveHead()
		b.release()
	}
}

// leaveHead copies the head before the buffer is somebody else's, while the answer is under way.
func (b *responseBody) leaveHead() {
	if b.headed {
		b.headed = false
		b.x.Response.Own()
	}
}

func (b *responseBody) release() {
	if b.buf != nil {
		b.client.worker.Loop.Return(b.buf)
		b.buf = nil
	}
	b.start, b.end, b.headed = 0, 0, false
}

var errBadChunks = &core.Error{Status: 502, Reason: "bad_response", Detail: "malformed chunks", Side: core.SideUpstream}
