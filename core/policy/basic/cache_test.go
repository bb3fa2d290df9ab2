package basic

import (
	"encoding/binary"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

func TestCache(t *testing.T) {
	var c cache
	d1, err := core.NewDirectory(nil)
	if err != nil {
		t.Fatal(err)
	}
	d2, _ := core.NewDirectory([]core.ConsumerSpec{{Consumer: core.Consumer{Name: "x"}}})
	who := &core.Consumer{Name: "ann"}
	f := func(what string, d *core.Directory, key byte, now int64, want *core.Consumer) {
		t.Helper()
		if got := c.find([32]byte{key}, d, now); got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	f("nothing yet", d1, 1, 0, nil)
	c.put([32]byte{1}, entry{who, 10})
	f("there", d1, 1, 9, who)
	f("over", d1, 1, 10, nil)
	f("another", d1, 2, 0, nil)
	for i := range uint32(3 * maxYoung) {
		var key [32]byte
		binary.LittleEndian.PutUint32(key[8:], i)
		c.put(key, entry{who, 10})
		if i%1000 == 0 {
			f("in use", d1, 1, 0, who)
		}
	}
	if len(c.young) > maxYoung || len(c.old) > maxYoung {
		t.Errorf("%d are young, %d old", len(c.young), len(c.old))
	}
	f("another directory", d2, 1, 0, nil)
	f("the one before, but nothing is left", d1, 1, 0, nil)
}

// openGate counts who comes in.
type openGate struct{ entered int }

func (g *openGate) Enter() bool { g.entered++; return true }
func (g *openGate) Leave()      {}

// closedGate lets nobody in.
type closedGate struct{}

func (closedGate) Enter() bool { return false }
func (closedGate) Leave()      {}

// TestVerifyIsBounded: every comparison passes the gate, that of an unknown user too; what is no credential costs none.
func TestVerifyIsBounded(t *testing.T) {
	d, err := core.NewDirectory(nil)
	if err != nil {
		t.Fatal(err)
	}
	g := &openGate{}
	p := New(Spec{}, core.NewConsumers(d), g, 1)
	if _, err := p.verify([]byte("YTpi"), d); err != errWrong || g.entered != 1 {
		t.Errorf("%v, entered %d times", err, g.entered)
	}
	if _, err := p.verify([]byte("YWI="), d); err != errMalformed || g.entered != 1 {
		t.Errorf("%v, entered %d times", err, g.entered)
	}
	p.gate = closedGate{}
	if _, err := p.verify([]byte("YTpi"), d); err != errBusy {
		t.Errorf("%v", err)
	}
	q := New(Spec{}, core.NewConsumers(d), g, 1)
	if one, again := p.key([]byte("x")), p.key([]byte("x")); one != again || one == q.key([]byte("x")) {
		t.Error("the keys of a cache are not of its policy")
	}
}
