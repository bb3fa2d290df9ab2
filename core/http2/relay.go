package http2

import (
	"io"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// relay sends a body as fast as the peer takes it. A piece is drawn when some of it can be sent. count gets the bytes sent.
func (t *stream) relay(m *core.Message, count *int64) *core.Error {
	for {
		if err := t.sendable(m.Body); err != nil {
			return err
		}
		p, err := m.Body.Next()
		if err != nil {
			if err == io.EOF {
				return t.sendData(nil, true)
			}
			return core.BodyError(err)
		}
		if t.asked != nil {
			t.x.KeepForReplay(p)
		}
		trailer := m.Trailer
		if err := t.sendPiece(m, &p, p.Last && len(trailer) == 0); err != nil {
			return err
		}
		*count += int64(p.End - p.Start)
		if p.Last {
			if len(trailer) > 0 {
				return t.sendTrailer(trailer)
			}
			return nil
		}
		m.Body.Release() // no buffer is held while the peer's window is shut
	}
}

// sendPiece sends a piece of the body of m, whose head was sent; end says that nothing follows. If it must wait in the middle, a small
// rest is kept in a small buffer meanwhile, and not in the loop's that the whole piece stood in.
func (t *stream) sendPiece(m *core.Message, p *core.Piece, end bool) *core.Error {
	r, rest := t.conn.res, p.Bytes()
	var kept []byte
	defer func() { r.giveBack(kept) }()
	for {
		if len(rest) > 0 && len(rest) <= smallRest && kept == nil && len(p.Buf) >= loop.BufferBytes && (t.conn.out.full() || !t.passes()) {
			kept = r.hold(rest)
			rest, p.Buf = kept, nil
			m.Body.Release()
			m.Own() // the loop does not keep every buffer that it gets back: nothing may point to it
		}
		if len(rest) == 0 {
			if err := t.roomy(); err != nil {
				return err
			}
		} else if err := t.turned(); err != nil {
			return err
		}
		if rest = t.sendFrame(rest, end); len(rest) == 0 {
			return nil
		}
	}
}

// smallRest is what is worth to be copied so that a buffer of the loop is free.
const smallRest = loop.BufferBytes / 4

// sourceOf gives the stream whose body it is; nil: it is not one's.
func sourceOf(body core.Body) *stream {
	switch b := body.(type) {
	case *serverStream:
		return &b.stream
	case *ClientStream:
		return &b.stream
	case core.Passer:
		return sourceOf(b.Source())
	}
	return nil
}
