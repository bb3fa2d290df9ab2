package core

import "io"

// heldBody is a request body that was taken whole before the request goes on.
type heldBody struct {
	x    *Exchange
	data []byte
	at   int
	done bool
	buf  []byte // borrowed for the piece that is out
}

// HoldBody takes the whole body of the request, for a policy that must see it, and leaves the same body to those who follow. A body of
// more than most bytes is refused with ErrBodyTooLarge. It waits for the client, within the listener's bounds. The bytes are
// valid until the exchange is over, and are not the caller's to change.
func (x *Exchange) HoldBody(most int) ([]byte, *Error) {
	m := &x.Request
	if m.Body == nil {
		return nil, nil
	}
	if b, held := m.Body.(*heldBody); held && b.at == 0 { // by a policy before this one
		if len(b.data) > most {
			return nil, ErrBodyTooLarge
		}
		return b.data, nil
	}
	if m.ContentLength > int64(most) {
		return nil, ErrBodyTooLarge
	}
	if err := x.invite(); err != nil {
		return nil, err
	}
	b := &heldBody{x: x}
	for last := false; !last; {
		p, err := m.Body.Next()
		if err != nil {
			return nil, BodyError(err)
		}
		if len(b.data)+p.End-p.Start > most {
			return nil, ErrBodyTooLarge
		}
		b.data, last = append(b.data, p.Bytes()...), p.Last
		m.Body.Release()
	}
	m.Body = b
	return b.data, nil
}

// invite tells a client that waits for it to send its body (RFC 9110, 10.1.1). Nobody who follows does so again.
func (x *Exchange) invite() *Error {
	m := &x.Request
	if !m.Expect100 {
		return nil
	}
	m.Expect100 = false
	m.Remove(FieldExpect)
	if m.Body.Ready() {
		return nil
	}
	x.Response.Reset()
	x.Response.Status = 100
	err := x.Downstream.Interim(x)
	x.Response.Reset()
	return err
}

// Ready is true: it stands in memory.
func (b *heldBody) Ready() bool { return true }

// Next gives the next piece.
func (b *heldBody) Next() (Piece, error) {
	b.Release()
	if b.done {
		return Piece{}, io.EOF
	}
	b.buf = b.x.Worker.Loop.Borrow()
	n := copy(b.buf[headRoom:len(b.buf)-PieceTail], b.data[b.at:])
	b.at += n
	b.done = b.at == len(b.data)
	return Piece{Buf: b.buf, Start: headRoom, End: headRoom + n, Last: b.done}, nil
}

// Release gives the last piece's memory back.
func (b *heldBody) Release() {
	if b.buf != nil {
		b.x.Worker.Loop.Return(b.buf)
		b.buf = nil
	}
}
