package http2

import (
	"io"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/loop"
)

// What follows makes a stream of either side one end of a tunnel (core.Stream).

// OpenTunnel prepares for bytes both ways. A wait ends after idle.
func (t *stream) OpenTunnel(idle time.Duration) {
	t.tunnel, t.receiveTimeout, t.sendTimeout, t.until = true, int64(idle), int64(idle), 0
	t.receivePace, t.sendPace = core.Pace{}, core.Pace{}
}

// Receive gives what the peer has sent, and waits for it: loop.ErrTimeout when nothing comes, io.EOF after its end. The bytes are
// valid until Release.
func (t *stream) Receive() ([]byte, error) {
	p, err := t.next()
	switch {
	case err != nil && t.gone == nil && err == error(t.conn.blame.slowSender): // and not that the stream has ended for such a reason
		return nil, loop.ErrTimeout
	case err == nil && p.Last && p.Start == p.End:
		return nil, io.EOF
	}
	return p.Bytes(), err
}

// Send sends bytes.
func (t *stream) Send(p []byte) *core.Error { return t.sendData(p, false) }

// CloseSend tells the peer that nothing more comes.
func (t *stream) CloseSend() *core.Error { return t.sendData(nil, true) }

// Cancel ends the stream, both ways. Who has asked for a CONNECT is told that it broke (RFC 9113, 8.5); a WebSocket knows no such
// difference (RFC 8441, 5).
func (t *stream) Cancel() {
	code := CodeCancel
	if t.asked == nil && t.x.Request.Method == core.MethodConnect {
		code = CodeConnect
	}
	if t.gone == nil {
		t.conn.cut(t.id, code, t.conn.blame.gone)
	}
}
