package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// Taker is the new process's side. Take is called first, by one goroutine, which may then call Leave, Taken or Failed;
// Follow runs on another from then on.
type Taker struct {
	conn *net.UnixConn
}

// NewTaker uses the end that was inherited, which it owns.
func NewTaker(theirs *os.File) (*Taker, error) {
	c, err := connOf(theirs)
	if err != nil {
		return nil, err
	}
	return &Taker{c}, nil
}

// Close ends it.
func (t *Taker) Close() { _ = t.conn.Close() }

// Taken is everything that a process was given.
type Taken struct {
	Hello   Hello    // of the process before
	Sockets []Socket // the caller's
	Parts   []Part
	Problem error // what of the state could not be read; the rest is there
}

// Take asks for everything and waits for it, for a bounded time.
func (t *Taker) Take(h Hello) (g Taken, err error) {
	_ = t.conn.SetDeadline(time.Now().Add(patience))
	defer func() {
		_ = t.conn.SetDeadline(time.Time{})
		if err != nil {
			CloseAll(g.Sockets)
			g, err = Taken{}, fmt.Errorf("cannot take over from the process before: %w", err)
		}
	}()
	if err := send(t.conn, &packet{Kind: kindHello, Hello: &h}); err != nil {
		return g, err
	}
	for {
		p, fds, err := receive(t.conn)
		if err != nil {
			return g, err
		}
		switch p.Kind {
		case kindEnd:
			closeFDs(fds)
			if p.Hello != nil {
				g.Hello = p.Hello.known()
			}
			return g, nil
		case kindSockets:
			if len(fds) != len(p.Names) || len(g.Sockets)+len(fds) > maxSockets {
				closeFDs(fds)
				return g, fmt.Errorf("%d descriptors came for %d names, after %d", len(fds), len(p.Names), len(g.Sockets))
			}
			for i, name := range p.Names {
				g.Sockets = append(g.Sockets, Socket{name, fds[i]})
			}
		case kindState:
			g.Parts, g.Problem = take(fds)
		default:
			closeFDs(fds)
		}
	}
}

// Leave says which sockets are of no use.
func (t *Taker) Leave(names []string) error {
	for len(names) > 0 {
		some := names[:min(len(names), fdsPerPacket)]
		names = names[len(some):]
		if err := send(t.conn, &packet{Kind: kindLeft, Names: some}); err != nil {
			return fmt.Errorf("cannot leave sockets to the process before: %w", err)
		}
	}
	return nil
}

// Taken says that this process accepts connections.
func (t *Taker) Taken() error {
	if err := send(t.conn, &packet{Kind: kindTaken}); err != nil {
		return fmt.Errorf("cannot tell the process before: %w", err)
	}
	return nil
}

// Failed says why this process gives up; reason is one word of at most 64 bytes for that, which need not be known there.
func (t *Taker) Failed(why, reason string) error {
	why = why[:min(len(why), maxErrorBytes)]
	if err := send(t.conn, &packet{Kind: kindFailed, Error: why, Reason: reason[:min(len(reason), maxReasonBytes)]}); err != nil {
		return fmt.Errorf("cannot tell the process before: %w", err)
	}
	return nil
}

// Follow calls report with each word of the draining process, and last with what it has counted since; it returns nil when
// that process has ended, and net.ErrClosed after Close.
func (t *Taker) Follow(report func(Report), last func([]Part, error)) error {
	for {
		p, fds, err := receive(t.conn)
		switch {
		case errors.Is(err, errGone):
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			return fmt.Errorf("cannot hear the process before: %w", err)
		case p.Kind == kindState:
			last(take(fds))
			continue
		case p.Kind == kindReport && p.Report != nil:
			report(*p.Report)
		}
		closeFDs(fds)
	}
}

// take reads the parts in the one file that came.
func take(fds []int) ([]Part, error) {
	if len(fds) != 1 {
		closeFDs(fds)
		return nil, fmt.Errorf("cannot read state: it came with %d descriptors", len(fds))
	}
	f := os.NewFile(uintptr(fds[0]), "state")
	defer func() { _ = f.Close() }()
	return load(f)
}
