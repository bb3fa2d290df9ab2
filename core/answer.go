package core

import (
	"io"
	"strconv"
)

// Answer makes the response here: status, content type and body. Fields may be added afterwards.
func (x *Exchange) Answer(status int, contentType, body string) {
	m := &x.Response
	m.Reset()
	m.Status = status
	m.Add(FieldDate, x.Worker.Date())
	if !mayHaveBody(status) {
		return
	}
	if contentType != "" {
		line := m.Begin(FieldContentType.String())
		line.String(contentType)
		line.End(FieldContentType)
	}
	m.ContentLength = int64(len(body))
	if body != "" {
		x.local = localBody{x: x, text: body}
		m.Body = &x.local
	}
}

func mayHaveBody(status int) bool { return status >= 200 && status != 204 && status != 304 }

// Fail makes the answer of a failure: a status and a stable reason code in JSON, never the cause's text.
func (x *Exchange) Fail(err *Error) {
	x.Err = err
	if x.Request.GRPC && err.Status != 0 {
		x.failGRPC(err)
	} else if err.Status != 0 {
		x.Answer(err.Status, "application/json", failureText(err))
		x.Response.Close = x.Response.Close || err.Close
	}
}

// failureText is the body of an error's answer. Reasons are identifiers, so nothing needs quoting.
func failureText(err *Error) string {
	return `{"error":"` + err.told() + `","status":` + strconv.Itoa(err.Status) + "}\n"
}

// localBody is a body that stands in memory. It borrows the loop's buffers one piece at a time.
type localBody struct {
	x    *Exchange
	text string
	buf  []byte
}

func (b *localBody) Next() (Piece, error) {
	if b.text == "" {
		return Piece{}, io.EOF
	}
	l := b.x.Worker.Loop
	if b.buf == nil {
		b.buf = l.Borrow()
	}
	end := len(b.buf) - PieceTail
	n := copy(b.buf[headRoom:end], b.text)
	b.text = b.text[n:]
	p := Piece{Buf: b.buf, Start: headRoom, End: headRoom + n, Last: b.text == ""}
	return p, nil
}

// Ready is true: it stands in memory.
func (b *localBody) Ready() bool { return true }

// Release leaves the buffer for the next piece.
func (b *localBody) Release() {}

// release gives the buffer back when the answer has been sent or given up.
func (b *localBody) release() {
	if b.buf != nil {
		b.x.Worker.Loop.Return(b.buf)
		b.buf = nil
	}
	b.text = ""
}

// headRoom is left before a local body so that an answer leaves in one write with its head.
const headRoom = 2048
