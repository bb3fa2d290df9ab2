package loop

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPipes bounds the empty pipes that a loop keeps for later.
const maxPipes = 16

// pipe is where spliced bytes wait in the kernel: 64 KiB at most.
type pipe struct{ r, w int }

func (l *Loop) takePipe() (*pipe, error) {
	if n := len(l.pipes); n > 0 {
		p := l.pipes[n-1]
		l.pipes = l.pipes[:n-1]
		return p, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("cannot make pipe: %w", err)
	}
	return &pipe{fds[0], fds[1]}, nil
}

func (l *Loop) givePipe(p *pipe) {
	if len(l.pipes) < maxPipes {
		l.pipes = append(l.pipes, p)
		return
	}
	p.close()
}

func (p *pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

// Splice moves up to n bytes from src to dst inside the kernel, and returns how many arrived at dst. io.EOF says that src
// has ended; moved is then counted up to there. On any other error what is between the two is lost, and both must be
// closed. wrote says whether the error is dst's. last is set to the loop's clock whenever something has arrived.
func (l *Loop) Splice(dst, src *Conn, n int64, last *int64) (moved int64, wrote bool, err error) {
	p, err := l.takePipe()
	if err != nil {
		return 0, false, err
	}
	var held int64 // in the pipe
	defer func() {
		if held == 0 {
			l.givePipe(p)
		} else {
			p.close()
		}
	}()
	for moved < n {
		if err := l.spend(); err != nil {
			return moved, false, err
		}
		if err := src.WaitRead(); err != nil {
			return moved, false, err
		}
		k, e := splice(int(src.fd), p.w, int(min(n-moved, BufferBytes)))
		switch {
		case e == syscall.EAGAIN:
			src.readable = false
			continue
		case e == syscall.EINTR:
			continue
		case e != 0:
			return moved, false, src.fail(e)
		case k == 0:
			return moved, false, src.end()
		}
		if src.QuickAck {
			acknowledge(int(src.fd))
		}
		for held = int64(k); held > 0; {
			if err := dst.WaitWrite(); err != nil {
				return moved, true, err
			}
			k, e := splice(p.r, int(dst.fd), int(held))
			switch e {
			case 0:
				held -= int64(k)
				moved += int64(k)
				*last = l.now
			case syscall.EAGAIN:
				dst.writable = false
			case syscall.EINTR:
			default:
				return moved, true, dst.fail(e)
			}
		}
	}
	return moved, false, nil
}
