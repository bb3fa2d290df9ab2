package tls

import (
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func ticketKeys(t *testing.T, o TicketOptions) *TicketKeys {
	t.Helper()
	k, err := NewTicketKeys(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// visitor is a client with a session cache, and what servers know it by.
type visitor struct {
	t      *testing.T
	store  *Store
	client *cryptotls.Config
}

func newVisitor(t *testing.T, version uint16) *visitor {
	ca := newAuthority(t, "ca")
	s := newStore(t, Options{Pairs: []Pair{ca.issue(t, ring().p256, nil, "a.example.com").inline()}})
	return &visitor{t, s, &cryptotls.Config{RootCAs: ca.pool(), ServerName: "a.example.com", MaxVersion: version,
		ClientSessionCache: cryptotls.NewLRUClientSessionCache(4)}}
}

func (v *visitor) server(k *TicketKeys, scope string) *cryptotls.Config {
	v.t.Helper()
	return serverConfig(v.t, ServerOptions{Store: v.store, Tickets: k, TicketScope: scope})
}

func (v *visitor) visit(server *cryptotls.Config, resumed bool) {
	v.t.Helper()
	o := good(v.t, server, v.client)
	if o.client.DidResume != resumed || o.server.DidResume != resumed {
		v.t.Errorf("resumed: %v, want %v", o.client.DidResume, resumed)
	}
}

func TestResumption(t *testing.T) {
	secret := bytes.Repeat([]byte("s"), 32)
	for _, version := range []uint16{cryptotls.VersionTLS12, cryptotls.VersionTLS13} {
		one, other := ticketKeys(t, TicketOptions{Secret: secret}), ticketKeys(t, TicketOptions{Secret: secret})
		v := newVisitor(t, version)
		v.visit(v.server(one, ""), false)
		v.visit(v.server(one, ""), true)
		v.visit(v.server(other, ""), true)
		v.visit(v.server(other, "strict"), false)
		v.visit(v.server(one, "strict"), true)
		v.visit(v.server(one, ""), false)
		v.visit(v.server(ticketKeys(t, TicketOptions{Secret: secret, Every: time.Hour}), ""), false)
		v.visit(v.server(ticketKeys(t, TicketOptions{}), ""), false)
		v.visit(v.server(ticketKeys(t, TicketOptions{}), ""), false)
		v.visit(v.server(nil, ""), false)
		if full, resumed := one.Handshakes(); full != 2 || resumed != 2 {
			t.Errorf("counted %d full and %d resumed handshakes", full, resumed)
		}
	}
}

func TestRotation(t *testing.T) {
	for _, secret := range [][]byte{nil, bytes.Repeat([]byte("s"), 40)} {
		const every = time.Hour
		k := ticketKeys(t, TicketOptions{Every: every, Secret: secret})
		now := time.Now()
		turn := func(n time.Duration) {
			t.Helper()
			if err := k.Rotate(now.Add(n * every)); err != nil {
				t.Fatal(err)
			}
		}
		v := newVisitor(t, cryptotls.VersionTLS12) // a session of 1.2 keeps its ticket
		server := v.server(k, "")
		v.visit(server, false)
		first := k.Export()
		turn(0)
		if !bytes.Equal(first, k.Export()) {
			t.Error("rotated before it was time")
		}
		turn(1)
		if bytes.Equal(first[:len(exported)+exportedKeyBytes], k.Export()[:len(exported)+exportedKeyBytes]) {
			t.Error("not rotated when it was time")
		}
		turn(2)
		// The server renews a ticket of an older key, so it goes to a client of its own.
		kept := v.client.ClientSessionCache
		session, _ := kept.Get("a.example.com")
		v.visit(server, true)
		kept.Put("a.example.com", session)
		turn(3)
		v.visit(server, false)
		if keys := len(k.set); keys > acceptedKeys+1 {
			t.Errorf("%d keys", keys)
		}
	}
}

func TestFleetWithSkewedClocks(t *testing.T) {
	secret := bytes.Repeat([]byte("s"), 32)
	slow, fast := ticketKeys(t, TicketOptions{Secret: secret}), ticketKeys(t, TicketOptions{Secret: secret})
	if err := fast.Rotate(time.Now().Add(defaultRotation)); err != nil {
		t.Fatal(err)
	}
	v := newVisitor(t, cryptotls.VersionTLS13)
	v.visit(v.server(fast, ""), false)
	v.visit(v.server(slow, ""), true)
	v.visit(v.server(fast, ""), true)
}

func TestHandOver(t *testing.T) {
	secret := bytes.Repeat([]byte("s"), 32)
	for _, o := range []struct{ old, next TicketOptions }{{}, {next: TicketOptions{Secret: secret}}, {old: TicketOptions{Secret: secret}}} {
		old, next := ticketKeys(t, o.old), ticketKeys(t, o.next)
		v := newVisitor(t, cryptotls.VersionTLS13)
		server := v.server(next, "")
		v.visit(v.server(old, ""), false)
		if err := next.Import(old.Export()); err != nil {
			t.Fatal(err)
		}
		v.visit(server, true)
		if err := ticketKeys(t, o.next).Import(next.Export()); err != nil {
			t.Fatal(err)
		}
	}
	k := ticketKeys(t, TicketOptions{})
	before := k.Export()
	for _, b := range [][]byte{nil, []byte("other"), []byte(exported), before[:len(before)-1], append(bytes.Clone(before), bytes.Repeat(before[len(exported):], maxExported)...)} {
		wants(t, k.Import(b), "cannot import ticket keys")
	}
	stale := bytes.Clone(before)
	stale[len(exported)+3] = 0xff // made far in the future
	if err := k.Import(stale); err != nil || !bytes.Equal(before, k.Export()) {
		t.Errorf("a key from the future was taken, %v", err)
	}
}

func TestTicketOptions(t *testing.T) {
	for want, o := range map[string]TicketOptions{
		"every 1s":        {Every: time.Second},
		"every 200h":      {Every: 200 * time.Hour},
		"secret of 31 by": {Secret: make([]byte, 31)},
		"secret of 0 by":  {Secret: []byte{}},
	} {
		_, err := NewTicketKeys(o)
		wants(t, err, want)
	}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := ticketKeys(t, TicketOptions{Every: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() {
			if err := k.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		before := k.Export()
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if !bytes.Equal(before, k.Export()) {
			t.Error("rotated too early")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if after := k.Export(); len(after) != len(before)+exportedKeyBytes || !bytes.HasSuffix(after, before[len(exported):]) {
			t.Error("no new key before the old one")
		}
		cancel()
		group.Wait()
	})
}

func TestForgottenConfigurations(t *testing.T) {
	v, k := newVisitor(t, 0), ticketKeys(t, TicketOptions{})
	kept := v.server(k, "")
	for range 100 {
		v.server(k, "")
	}
	for deadline := time.Now().Add(patience); ; {
		runtime.GC()
		if err := k.Rotate(time.Now()); err != nil {
			t.Fatal(err)
		}
		if len(k.bound) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d configurations are held", len(k.bound))
		}
	}
	runtime.KeepAlive(kept)
}
