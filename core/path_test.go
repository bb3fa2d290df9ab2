package core

import "testing"

// ends counts how often it is told of an end.
type ends struct{ told int }

func (e *ends) OnEnd(*Exchange) { e.told++ }

// breaks panics when the exchange is done with it.
type breaks struct{ Upstream }

func (breaks) Finish(*Exchange) { panic("here") }
func (breaks) Abandon()         {}

// Who waits for an end is told once, also when a panic comes after.
func TestEndIsToldOnce(t *testing.T) {
	g := NewGateway(&Snapshot{}, nil)
	x := &Exchange{Worker: &Worker{gateway: g}}
	x.reset()
	var trial, hold ends
	x.Upstream, x.Trial, x.Hold = breaks{}, &trial, &hold
	func() {
		defer func() { _ = recover() }()
		g.respond(x)
		t.Error("there was no panic")
	}()
	x.Worker.Abandon(x)
	if trial.told != 1 || hold.told != 1 {
		t.Errorf("told %d and %d times", trial.told, hold.told)
	}
}
