package observe

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// openSink opens a destination as config.AccessLog.To names it.
func openSink(to string) (sink, error) {
	switch {
	case to == "stdout":
		return &stream{w: os.Stdout}, nil
	case to == "stderr":
		return &stream{w: os.Stderr}, nil
	case strings.HasPrefix(to, "syslog:unix:"):
		return openSyslog("unixgram", strings.TrimPrefix(to, "syslog:unix:"))
	case strings.HasPrefix(to, "syslog:udp:"):
		return openSyslog("udp", strings.TrimPrefix(to, "syslog:udp:"))
	case filepath.IsAbs(to):
		f, err := openFile(to)
		if err != nil {
			return nil, err
		}
		return &stream{w: f, file: f, path: to}, nil
	}
	return nil, errors.New("neither stdout, stderr, an absolute path, syslog:unix:PATH nor syslog:udp:ADDRESS")
}

// openFile does not wait for the reader of a FIFO: whoever opens a log must answer.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|unix.O_NONBLOCK, 0o640)
	if errors.Is(err, unix.ENXIO) {
		err = fmt.Errorf("%w: nobody reads this FIFO", err)
	}
	return f, err
}

// stream is a file or another writer of bytes.
type stream struct {
	w    io.Writer
	file *os.File // nil: not ours to close
	path string
	torn bool // the last write ended within a line
}

func (s *stream) write(lines []byte, count int) (lost int, err error) {
	if s.torn {
		if _, err := s.w.Write([]byte{'\n'}); err != nil {
			return count, err
		}
		s.torn = false
	}
	n, err := s.w.Write(lines)
	if err == nil {
		return 0, nil
	}
	s.torn = n > 0 && lines[n-1] != '\n'
	return count - bytes.Count(lines[:n], []byte{'\n'}), err
}

func (s *stream) reopen() error {
	if s.file == nil {
		return nil
	}
	f, err := openFile(s.path)
	if err != nil {
		return fmt.Errorf("cannot reopen access log: %w", err)
	}
	old := s.file
	s.w, s.file, s.torn = f, f, false
	return old.Close()
}

func (s *stream) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

const (
	// syslogTimeout is how long a datagram may wait for a receiver whose queue is full.
	syslogTimeout = 100 * time.Millisecond
	// syslogRedial is how often a receiver that has gone is looked for.
	syslogRedial = time.Second
	// syslogPriority is facility local0, severity informational (RFC 5424, 6.2.1).
	syslogPriority = 16*8 + 6
)

// syslog sends each line as a message of RFC 5424 in a datagram of its own (RFC 5426).
type syslog struct {
	network, address string
	conn             net.Conn // nil: gone
	dialled          time.Time
	head             string // from the host name to the message
	buf              []byte
	clock            lineClock
}

func openSyslog(network, address string) (sink, error) {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "-"
	}
	s := &syslog{network: network, address: address}
	s.head = " " + host + " sluice " + strconv.Itoa(os.Getpid()) + " access - "
	return s, s.dial()
}

func (s *syslog) dial() (err error) {
	s.dialled = time.Now()
	s.conn, err = net.DialTimeout(s.network, s.address, syslogRedial)
	if err != nil {
		s.conn = nil
	}
	return err
}

func (s *syslog) write(lines []byte, count int) (lost int, err error) {
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n')
		if failure := s.send(lines[:end]); failure != nil {
			err = failure
			lost++
			if s.conn == nil { // nothing more can be sent
				return lost + bytes.Count(lines[end+1:], []byte{'\n'}), err
			}
		}
		lines = lines[end+1:]
	}
	return lost, err
}

func (s *syslog) send(line []byte) error {
	if s.conn == nil {
		if time.Since(s.dialled) < syslogRedial {
			return net.ErrClosed
		}
		if err := s.dial(); err != nil {
			return err
		}
	}
	now := time.Now()
	s.buf = append(strconv.AppendInt(append(s.buf[:0], '<'), syslogPriority, 10), ">1 "...)
	s.buf = append(append(s.clock.append(s.buf, now.UnixNano()), s.head...), line...)
	if err := s.conn.SetWriteDeadline(now.Add(syslogTimeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(s.buf)
	if err != nil && s.network == "unixgram" && !errors.Is(err, os.ErrDeadlineExceeded) && !tooLong(err) {
		_ = s.conn.Close() // the receiver has gone, with its socket
		s.conn = nil
	}
	return err
}

func (s *syslog) reopen() error { return nil }

func (s *syslog) close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

func tooLong(err error) bool { return errors.Is(err, unix.EMSGSIZE) }
