package loop

import (
	"fmt"
	"io"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Handler serves a connection. Serve runs in a coroutine, from the first byte on; when it returns, the connection is closed
// or idle: then Serve is called again when more comes. String names it in logs.
type Handler interface {
	Serve(c *Conn)
	String() string
}

// Expirer is a Handler that is asked when the deadline of an idle connection has passed, and must not wait. It closes the
// connection, or has a task take it that does so in the end: the loop does not close it.
type Expirer interface {
	Expired(c *Conn)
}

// connEvents are what an edge-triggered connection is registered for, once and for its life.
const connEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// Group tells connections that belong together from others: it is known by its address alone.
type Group struct{ _ byte }

// Conn is a connected stream socket of a loop: Read and Write wait by yielding. At most one coroutine reads it and one
// writes it. A Conn is not reused.
type Conn struct {
	// Timeouts of each single wait, in nanoseconds, and the instant on the loop's clock at which every wait ends. 0: none.
	ReadTimeout, WriteTimeout, Deadline int64
	// Group is for whoever adopted it.
	Group *Group
	// HalfClose says that a peer which closes its sending side has not hung up.
	HalfClose bool
	// Busy says that tasks beside the handler work for the connection: to be idle is no reason to close it.
	Busy bool
	// Tunnel says that bytes pass unread between it and another, until it is closed. The loop takes no notice.
	Tunnel bool
	// QuickAck has the kernel acknowledge what is read at once, for a peer that waits for it before it sends the rest (RFC 896). Only of TCP.
	// It costs a system call for each read: the kernel forgets it with each answer that is sent (man 7 tcp, TCP_QUICKACK).
	QuickAck bool

	loop    *Loop
	handler Handler
	reader  *coroutine
	writer  *coroutine
	watcher *coroutine
	turn    *coroutine // waits in Queue
	came    int64      // when what is wanted came; 0: it was not noted
	timer   timer      // ends an idle connection
	secure  *secure
	fd      int32
	serial  int32

	readable bool // the kernel may have bytes, or an end: a read may not be in vain
	buffered bool // bytes of the peer may wait in secure
	writable bool
	ended    bool // the peer has closed its side, or all: read up to the end, then hang-up
	broken   bool // both sides are over
	spent    bool // the end has been read: nothing more will come
	reset    bool // the peer, or the kernel, has aborted it, of which the kernel tells once, a write or a read
	closed   bool
	idle     bool // nobody uses it: the next event has its handler started
	dialled  bool // by this side: what comes is an answer
	wanted   bool // waits in one of the loop's queues
}

// newConn registers fd. The edges that come with it say what is ready.
func (l *Loop) newConn(fd int, h Handler) (*Conn, error) {
	l.serial++
	c := &Conn{loop: l, handler: h, fd: int32(fd), serial: l.serial}
	c.timer.owner = c
	for fd >= len(l.conns) {
		l.conns = append(l.conns, make([]*Conn, max(1024, len(l.conns)))...)
	}
	l.conns[fd] = c
	if err := l.register(fd, connEvents, c.serial); err != nil {
		l.conns[fd] = nil
		return nil, err
	}
	return c, nil
}

// Adopt makes a connection of a connected, non-blocking socket, which the loop owns from then on, also when it fails.
func (l *Loop) Adopt(fd int, h Handler) (*Conn, error) {
	c, err := l.newConn(fd, h)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot watch socket: %w", err)
	}
	return c, nil
}

// Loop is the loop that owns c.
func (c *Conn) Loop() *Loop { return c.loop }

// Handle gives the connection to another handler.
func (c *Conn) Handle(h Handler) { c.handler = h }

// Handler is who serves c.
func (c *Conn) Handler() Handler { return c.handler }

// EachIdle calls f for every connection of l that nobody uses at the moment, nor works for, and to which nothing has come. f may close it.
func (l *Loop) EachIdle(f func(c *Conn)) {
	for _, c := range l.conns {
		if c != nil && c.idle && !c.Busy && !c.Readable() && !c.unheard() {
			f(c)
		}
	}
}

// unheard says whether the kernel has bytes for c of which the loop may not know yet. To close it then resets the connection.
func (c *Conn) unheard() bool {
	n, err := unix.IoctlGetInt(int(c.fd), unix.SIOCINQ)
	return err == nil && n > 0
}

// Closed says whether Close was called.
func (c *Conn) Closed() bool { return c.closed }

// Ended says whether the peer was seen to have closed its sending side, or all.
func (c *Conn) Ended() bool { return c.ended }

// Readable says whether bytes or an end may be there: the kernel has said so, and no read has shown otherwise.
func (c *Conn) Readable() bool { return c.readable || c.buffered }

// gone says whether the peer has hung up as far as a watcher is concerned.
func (c *Conn) gone() bool { return c.broken || c.ended && !c.HalfClose }

// Idle leaves the connection to the loop: no coroutine uses it, and its handler is called when something comes. It is closed
// at the deadline on the loop's clock; 0: never. What was there to read should have been read; when that was the end, or the
// loop stops, it is closed at once.
func (c *Conn) Idle(deadline int64) {
	if c.spent || c.loop.stopping {
		c.Close()
	}
	if c.closed {
		return
	}
	c.idle = true
	c.loop.wheel.set(&c.timer, deadline)
	if c.Readable() {
		c.loop.want(c)
	}
}

// Use takes an idle connection back from the loop, for the calling task, which closes it or leaves it idle again.
func (c *Conn) Use() {
	c.idle = false
	c.timer.deadline = 0
}

// expire ends a connection that is still idle, unless something has come in time.
func (c *Conn) expire() {
	if !c.idle || c.Readable() {
		return
	}
	if h, ok := c.handler.(Expirer); ok {
		h.Expired(c)
		return
	}
	c.Close()
}

// event takes what the kernel says of c.
func (c *Conn) event(events uint32) {
	if events&unix.EPOLLOUT != 0 {
		c.writable = true
	}
	if events&(unix.EPOLLIN|unix.EPOLLPRI) != 0 {
		c.readable = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.readable, c.ended = true, true
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			c.writable, c.broken = true, true
		}
	}
	l := c.loop
	if w := c.watcher; w != nil && c.gone() {
		l.interrupt(w, ErrHangup)
	}
	if w := c.writer; w != nil && c.writable && w.parked && !w.ready {
		l.resume(w)
	}
	if c.closed || !c.readable {
		return
	}
	if r := c.reader; r != nil && r.parked && !r.ready {
		l.resume(r)
	} else if c.idle && c.dialled && !c.wanted {
		l.attend(c)
	} else if c.idle {
		l.want(c)
	}
}

// deadline is the end of a wait that may take timeout.
func (c *Conn) deadline(timeout int64) int64 {
	if timeout <= 0 {
		return c.Deadline
	}
	t := c.loop.now + timeout
	if c.Deadline != 0 && c.Deadline < t {
		return c.Deadline
	}
	return t
}

// WaitRead waits until a read may find something. No buffer need be held for it.
func (c *Conn) WaitRead() error {
	for c.closed || !c.Readable() {
		if c.closed {
			return ErrClosed
		}
		if c.reader != nil {
			panic("BUG: two tasks read a connection")
		}
		co := c.loop.current
		c.reader = co
		err := co.park(c.deadline(c.ReadTimeout))
		c.reader = nil
		if err != nil {
			return err
		}
	}
	return nil
}

// WaitWrite waits until a write may succeed.
func (c *Conn) WaitWrite() error {
	for c.closed || !c.writable {
		if c.closed {
			return ErrClosed
		}
		if c.writer != nil {
			panic("BUG: two tasks write a connection")
		}
		co := c.loop.current
		c.writer = co
		err := co.park(c.deadline(c.WriteTimeout))
		c.writer = nil
		if err != nil {
			return err
		}
	}
	return nil
}

// ReadNow reads what is there; ErrAgain when there is nothing, io.EOF after the peer's end, ErrReset after its abort, also if a
// write was told of that.
func (c *Conn) ReadNow(p []byte) (int, error) {
	if c.closed {
		return 0, ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	if c.secure != nil {
		return c.secure.read(p)
	}
	return c.readRaw(p)
}

// readRaw is ReadNow on the socket.
func (c *Conn) readRaw(p []byte) (int, error) {
	for c.readable {
		n, e := recv(int(c.fd), p)
		switch {
		case n > 0:
			// A short read leaves nothing behind, unless an end was merged with the data.
			c.readable = n == len(p) || c.ended
			if c.QuickAck {
				acknowledge(int(c.fd))
			}
			return n, nil
		case n == 0 && e == 0:
			return 0, c.end()
		case e == syscall.EAGAIN:
			c.readable = false
		case e != syscall.EINTR:
			return 0, c.fail(e)
		}
	}
	return 0, ErrAgain
}

// Read reads at least one byte, waiting for it; io.EOF after the peer's end.
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.loop.spend(); err != nil {
		return 0, err
	}
	for {
		if err := c.WaitRead(); err != nil {
			return 0, err
		}
		n, err := c.ReadNow(p)
		if err != ErrAgain {
			return n, err
		}
	}
}

// Write writes all of p, waiting as often as it must.
func (c *Conn) Write(p []byte) (int, error) { return c.write(p, false) }

// WriteOver is Write that may overwrite p: while it waits, what is left of p stands in it encrypted, and no other buffer is held.
func (c *Conn) WriteOver(p []byte) (int, error) { return c.write(p, true) }

func (c *Conn) write(p []byte, over bool) (int, error) {
	if err := c.loop.spend(); err != nil {
		return 0, err
	}
	if c.secure != nil {
		return c.secure.write(p, over)
	}
	return c.writeRaw(p)
}

func (c *Conn) writeRaw(p []byte) (n int, err error) {
	for {
		if err = c.WaitWrite(); err != nil {
			return n, err
		}
		k, err := c.sendRaw(p[n:])
		if n += k; err != nil || n == len(p) {
			return n, err
		}
	}
}

// sendRaw writes what the socket takes now.
func (c *Conn) sendRaw(p []byte) (n int, err error) {
	for c.writable {
		k, e := send(int(c.fd), p[n:])
		switch {
		case e == 0:
			if n += k; n == len(p) {
				return n, nil
			}
			c.writable = false // a short write: the buffer is full, and an edge will follow
		case e == syscall.EAGAIN:
			c.writable = false
		case e != syscall.EINTR:
			return n, c.fail(e)
		}
	}
	return n, nil
}

// end is what a read means that finds nothing, now nor ever: io.EOF, unless a write was told that the peer has aborted the connection. What
// has come is then not all that was sent.
func (c *Conn) end() error {
	c.ended, c.spent = true, true
	if c.reset {
		return ErrReset
	}
	return io.EOF
}

// fail is what a system call's error means for the exchange.
func (c *Conn) fail(e syscall.Errno) error {
	c.ended, c.broken, c.spent = true, true, true
	c.reset = c.reset || e != syscall.EPIPE // which comes after the peer's end as well; ETIMEDOUT is an abort, too: the kernel's
	switch e {
	case syscall.ECONNRESET, syscall.EPIPE:
		return ErrReset
	case syscall.ETIMEDOUT:
		return ErrTimeout
	}
	return e
}

// CloseWrite tells the peer that nothing more will come.
func (c *Conn) CloseWrite() {
	if !c.closed {
		if c.secure != nil {
			c.secure.end()
		}
		_ = unix.Shutdown(int(c.fd), unix.SHUT_WR)
	}
}

// Reset makes Close abort the connection: the peer gets RST instead of FIN, and nothing lingers in the kernel.
func (c *Conn) Reset() {
	if !c.closed {
		_ = unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
}

// Close closes the socket and ends the waits of others on it. It may be called again.
func (c *Conn) Close() {
	if c.closed {
		return
	}
	if c.secure != nil {
		c.secure.close()
	}
	c.closed = true
	l := c.loop
	l.conns[c.fd] = nil
	l.wheel.remove(&c.timer)
	closeFD(int(c.fd))
	for _, co := range [...]*coroutine{c.reader, c.writer} {
		if co != nil && co != l.current {
			l.interrupt(co, ErrClosed)
		}
	}
	if c.watcher != nil {
		c.watcher.peer, c.watcher = nil, nil
	}
	if h, ok := c.handler.(interface{ Closed(c *Conn) }); ok {
		h.Closed(c)
	}
}

// Local is the address of this side; zero for a unix socket and after Close. Each call asks the kernel.
func (c *Conn) Local() netip.AddrPort { return c.address(unix.Getsockname) }

// Peer is the address of the other side, as Local.
func (c *Conn) Peer() netip.AddrPort { return c.address(unix.Getpeername) }

func (c *Conn) address(of func(fd int) (unix.Sockaddr, error)) netip.AddrPort {
	if c.closed {
		return netip.AddrPort{}
	}
	return addrOf(of(int(c.fd)))
}

func addrOf(sa unix.Sockaddr, err error) netip.AddrPort {
	if err != nil {
		return netip.AddrPort{}
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}
