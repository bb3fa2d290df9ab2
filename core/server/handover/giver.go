package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// patience is how long either side may take for what it does at once.
const patience = 10 * time.Second

// Give is everything that a process hands over.
type Give struct {
	Hello   Hello
	Sockets []Socket // Offer closes them
	Parts   []Part
}

// Answer is what the new process said of it.
type Answer struct {
	Hello  Hello
	Taken  bool            // it accepts from what it has not left
	Left   map[string]bool // names of sockets that it has no use for
	Failed string          // why it gave up; "": it did not say
	Reason string          // a word for that, of which this version need not know; "": none was said
}

// Offer serves the new process until it has said that it has taken over or failed, or Recall ends it. everything is asked
// when the process has introduced itself.
func (p *Pair) Offer(everything func() (Give, error)) (a Answer, err error) {
	a.Left = map[string]bool{}
	for !a.Taken && a.Failed == "" {
		got, fds, err := receive(p.conn)
		closeFDs(fds) // the new process has none to give
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return a, nil
			}
			return a, fmt.Errorf("cannot hear the new process: %w", err)
		}
		switch got.Kind {
		case kindHello:
			if got.Hello != nil {
				a.Hello = got.Hello.known()
			}
			if err := p.give(everything); err != nil {
				return a, err
			}
		case kindLeft:
			for _, name := range got.Names {
				if len(a.Left) < maxSockets {
					a.Left[name] = true
				}
			}
		case kindTaken:
			a.Taken = true
		case kindFailed:
			a.Failed, a.Reason = got.Error, got.Reason
			if a.Failed == "" {
				a.Failed = "it does not say why"
			}
		}
	}
	return a, nil
}

// Recall makes Offer return when what has been said by now was heard. It may be called while Offer runs.
func (p *Pair) Recall() { _ = p.conn.SetReadDeadline(time.Now().Add(recallTime)) }

// recallTime is how long Offer hears what was said before it was recalled.
const recallTime = 50 * time.Millisecond

// Again makes Offer possible after Recall.
func (p *Pair) Again() { _ = p.conn.SetReadDeadline(time.Time{}) }

func (p *Pair) give(everything func() (Give, error)) error {
	g, err := everything()
	defer CloseAll(g.Sockets)
	if err != nil {
		return err
	}
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	for rest := g.Sockets; len(rest) > 0; {
		some := rest[:min(len(rest), fdsPerPacket)]
		rest = rest[len(some):]
		out := packet{Kind: kindSockets}
		var fds []int
		for _, s := range some {
			if len(s.Name) > maxNameBytes {
				return fmt.Errorf("cannot hand over a socket whose name has %d bytes", len(s.Name))
			}
			out.Names, fds = append(out.Names, s.Name), append(fds, s.FD)
		}
		if err := send(p.conn, &out, fds...); err != nil {
			return fmt.Errorf("cannot hand over sockets: %w", err)
		}
	}
	if err := p.state(g.Parts); err != nil {
		return err
	}
	if err := send(p.conn, &packet{Kind: kindEnd, Hello: &g.Hello}); err != nil {
		return fmt.Errorf("cannot hand over: %w", err)
	}
	return nil
}

// state sends parts in a file without a name, which ends with the last who has it.
func (p *Pair) state(parts []Part) error {
	f, err := store(parts)
	if err == nil {
		err = send(p.conn, &packet{Kind: kindState}, int(f.Fd()))
		_ = f.Close()
	}
	if err != nil {
		return fmt.Errorf("cannot hand over state: %w", err)
	}
	return nil
}

// Report tells the new process how the drain goes.
func (p *Pair) Report(r Report) error {
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	return told(send(p.conn, &packet{Kind: kindReport, Report: &r}))
}

// Last tells it what has been counted since the first state.
func (p *Pair) Last(parts []Part) error {
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	return told(p.state(parts))
}

func told(err error) error {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("cannot tell the new process: %w", err)
	}
	return err
}
