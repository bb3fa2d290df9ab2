package grpcweb

import (
	"encoding/base64"
	"encoding/binary"
	"io"

	"github.com/sluice-gateway/sluice/core"
)

// encoder gives an answer's body with its trailers at the end of it, in a frame of their own, and all of it in base64 if text
// is wanted. Each piece is padded, so that none has to wait for the next.
type encoder struct {
	x     *core.Exchange
	body  core.Body
	text  bool
	ended bool       // the body has; its trailers follow
	over  bool       // they have been given
	piece core.Piece // of body, of which from..End is still to be encoded
	from  int
	buf   []byte // borrowed
}

const (
	trailerFrame = 0x80    // the flag that tells trailers from messages
	frameHead    = 5       // flag and length
	textPiece    = 3 << 14 // bytes that are encoded at once: in base64 they fit into a buffer of the loop
	textRoom     = 1 << 10 // left before them, for the head that they are sent with
)

func (e *encoder) begin(x *core.Exchange, body core.Body, text bool) {
	*e = encoder{x: x, body: body, text: text}
}

// end gives back what was borrowed.
func (e *encoder) end() { e.giveBack() }

// Ready says whether a piece is at hand.
func (e *encoder) Ready() bool {
	return e.from < e.piece.End || e.ended && !e.over || !e.ended && e.body.Ready()
}

// Release gives the last piece back.
func (e *encoder) Release() {
	if e.from == e.piece.End {
		e.giveBack()
		if !e.ended {
			e.body.Release()
		}
	}
}

func (e *encoder) giveBack() {
	if e.buf != nil {
		e.x.Worker.Loop.Return(e.buf)
		e.buf = nil
	}
}

// Next gives the next piece.
func (e *encoder) Next() (core.Piece, error) {
	if e.from == e.piece.End {
		switch {
		case e.over:
			return core.Piece{}, io.EOF
		case e.ended:
			return e.trailers(), nil
		}
		p, err := e.body.Next()
		if err == io.EOF {
			return e.trailers(), nil
		}
		if err != nil {
			return p, err
		}
		e.ended, p.Last = p.Last, false
		if !e.text {
			return p, nil
		}
		e.piece, e.from = p, p.Start
	}
	n := min(e.piece.End-e.from, textPiece)
	b := e.borrow()
	b = base64.StdEncoding.AppendEncode(b, e.piece.Buf[e.from:e.from+n])
	e.from += n
	return core.Piece{Buf: e.buf, Start: textRoom, End: len(b)}, nil
}

func (e *encoder) borrow() []byte {
	if e.buf == nil {
		e.buf = e.x.Worker.Loop.Borrow()
	}
	return e.buf[:textRoom]
}

// trailers gives the last piece: the trailers as lines of HTTP/1.1, with names in lower case as HTTP/2 has them.
func (e *encoder) trailers() core.Piece {
	e.ended, e.over = true, true
	m := &e.x.Response
	lines := m.Trailer
	m.Trailer = nil
	raw := make([]byte, frameHead, frameHead+len(lines))
	raw[0] = trailerFrame
	binary.BigEndian.PutUint32(raw[1:], uint32(len(lines)))
	raw = append(raw, lines...)
	b := e.borrow()
	if e.text {
		b = base64.StdEncoding.AppendEncode(b, raw)
	} else {
		b = append(b, raw...)
	}
	return core.Piece{Buf: e.buf, Start: textRoom, End: len(b), Last: true}
}
