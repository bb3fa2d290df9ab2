package loop

import (
	"crypto/tls"
	"io"
	"net"
	"time"
)

const (
	recordHeader = 5       // type, version, length (RFC 8446, 5.1)
	sealPiece    = 4 << 14 // bytes that are encrypted before they are sent: four full records fit a buffer of the loop
)

// secure is crypto/tls between a connection's socket and its user. crypto/tls holds locks while it reads and writes, so
// what it is given never waits, the handshake apart, which one task runs alone: a read says that it has nothing yet, and
// a write gathers what is then sent outside of the locks.
type secure struct {
	tls     *tls.Conn
	conn    *Conn
	in      []byte // received and not yet decrypted, the rest of buf
	buf     []byte // borrowed
	out     []byte // encrypted and not yet sent: of the handshake, an alert, an answer to a key update
	left    int    // bytes of the record that crypto/tls reads
	header  [recordHeader]byte
	headed  int // bytes of the header that were given
	shaking bool
}

// SecureServer makes the server's handshake and gives what it came to; from then on c reads and writes through TLS. It waits
// as Read and Write do. early is what was read of c already; it is c's from then on.
func (c *Conn) SecureServer(config *tls.Config, early []byte) (tls.ConnectionState, error) {
	s := &secure{conn: c, in: early}
	s.tls = tls.Server(socket{s}, config)
	return s.handshake(true)
}

// SecureClient makes the client's handshake.
func (c *Conn) SecureClient(config *tls.Config) (tls.ConnectionState, error) {
	s := &secure{conn: c}
	s.tls = tls.Client(socket{s}, config)
	return s.handshake(false)
}

// Encrypted says whether c reads and writes through TLS.
func (c *Conn) Encrypted() bool { return c.secure != nil }

// Offload runs f, which computes for long during the handshake of conn, outside of the loop. conn is what crypto/tls shows
// to the callbacks of a handshake.
func Offload(conn net.Conn, f func()) {
	if s, ok := conn.(socket); ok {
		s.conn.loop.Await(f)
		return
	}
	f()
}

func (s *secure) handshake(server bool) (state tls.ConnectionState, err error) {
	c := s.conn
	s.shaking = true
	err = s.tls.Handshake()
	s.shaking = false
	if err == nil {
		state = s.tls.ConnectionState()
	}
	// What a server of TLS 1.3 still has to send are tickets: they leave together with the first answer.
	if !server || state.Version != tls.VersionTLS13 {
		if flushed := s.flush(); err == nil {
			err = flushed
		}
	}
	if err != nil {
		s.release()
		return state, &secureError{"cannot shake hands", err}
	}
	c.secure = s
	c.buffered = len(s.in) > 0
	return state, nil
}

// read decrypts what is there; ErrAgain when the rest of a record must come first.
func (s *secure) read(p []byte) (int, error) {
	n, err := s.tls.Read(p)
	if len(s.in) == 0 {
		s.release()
	}
	c := s.conn
	c.buffered = len(s.in) > 0 || n == len(p)
	switch {
	case n > 0:
		return n, nil
	case err == nil || err == error(again{}):
		c.buffered = len(s.in) > 0
		return 0, ErrAgain
	case err == io.EOF:
		c.spent = true
		return 0, io.EOF
	case c.broken:
		return 0, ErrReset
	}
	c.spent = true
	return 0, &secureError{"cannot decrypt", err}
}

// write encrypts and sends all of p. over: what the socket does not take now may wait in p, which is not needed any more once it
// is encrypted, and not in a buffer beside it.
func (s *secure) write(p []byte, over bool) (n int, err error) {
	c := s.conn
	for n < len(p) {
		if err = c.WaitWrite(); err != nil {
			return n, err
		}
		buf := c.loop.Borrow()
		s.out = append(buf[:0], s.out...)
		piece := p[n:min(n+sealPiece, len(p))]
		k, err := s.tls.Write(piece)
		out := s.out
		s.out = nil // while out is on its way, a read may have something to send
		if err == nil {
			var sent int
			sent, err = c.sendRaw(out)
			out = out[sent:]
		}
		var rest []byte
		if over {
			room := p[:n+len(piece)]
			taken := copy(room, out)
			rest = append(rest, out[taken:]...) // records are a little longer than what is in them
			out = room[:taken]
			c.loop.Return(buf)
		}
		if err == nil && len(out) > 0 {
			_, err = c.writeRaw(out)
		}
		if err == nil && len(rest) > 0 {
			_, err = c.writeRaw(rest)
		}
		if !over {
			c.loop.Return(buf)
		}
		if err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// flush sends what was encrypted.
func (s *secure) flush() error {
	out := s.out
	s.out = nil
	if len(out) == 0 {
		return nil
	}
	_, err := s.conn.writeRaw(out)
	return err
}

// end tells the peer that nothing more will come, as far as the socket takes it now.
func (s *secure) end() {
	if s.conn.broken || s.conn.writer != nil {
		return
	}
	_ = s.tls.CloseWrite()
	if out := s.out; len(out) > 0 && s.conn.writable {
		s.out = nil
		_, _ = send(int(s.conn.fd), out)
	}
}

func (s *secure) close() {
	s.end()
	s.release()
}

func (s *secure) release() {
	if s.buf != nil {
		s.conn.loop.Return(s.buf)
		s.buf, s.in = nil, nil
	}
}

// fill takes bytes from the kernel.
func (s *secure) fill() error {
	c := s.conn
	if s.shaking {
		if err := s.flush(); err != nil {
			return err
		}
		if err := c.WaitRead(); err != nil {
			return err
		}
	}
	if s.buf == nil {
		s.buf = c.loop.Borrow()
	}
	n, err := c.readRaw(s.buf)
	s.in = s.buf[:n]
	if err == ErrAgain {
		return again{}
	}
	return err
}

// socket is what crypto/tls takes for the connection below.
type socket struct{ *secure }

// Read gives bytes of one record at most, so that what has come of the next ones waits here and is known of.
func (s socket) Read(p []byte) (int, error) {
	for len(s.in) == 0 {
		if err := s.fill(); err != nil && (err != error(again{}) || !s.shaking) {
			return 0, err
		}
	}
	n := min(len(p), len(s.in))
	if s.left > 0 {
		n = min(n, s.left)
		s.left -= n
	} else {
		n = copy(s.header[s.headed:], s.in[:n])
		if s.headed += n; s.headed == recordHeader {
			s.left, s.headed = int(s.header[3])<<8|int(s.header[4]), 0
		}
	}
	copy(p, s.in[:n])
	s.in = s.in[n:]
	return n, nil
}

// Write gathers.
func (s socket) Write(p []byte) (int, error) {
	s.out = append(s.out, p...)
	return len(p), nil
}

func (s socket) Close() error                     { return nil }
func (s socket) LocalAddr() net.Addr              { return net.TCPAddrFromAddrPort(s.conn.Local()) }
func (s socket) RemoteAddr() net.Addr             { return net.TCPAddrFromAddrPort(s.conn.Peer()) }
func (s socket) SetDeadline(time.Time) error      { return nil }
func (s socket) SetReadDeadline(time.Time) error  { return nil }
func (s socket) SetWriteDeadline(time.Time) error { return nil }

// again is ErrAgain as crypto/tls understands it: a temporary error does not end the connection.
type again struct{}

func (again) Error() string   { return "nothing to read yet" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// secureError is what TLS fails with.
type secureError struct {
	what string
	err  error
}

func (e *secureError) Error() string { return e.what + ": " + e.err.Error() }
func (e *secureError) Unwrap() error { return e.err }
