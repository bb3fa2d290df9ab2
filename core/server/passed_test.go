package server

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/vacant"
	"github.com/sluice-gateway/sluice/systemd"
)

// A socket of a socket unit is used by the bind with its address, or by the listener with its name; who connected before the
// start is served. The others are closed, and the log says so.
func TestSystemdPassesSockets(t *testing.T) {
	m := newManager(t)
	first, byAddress := listening(t)
	second, byName := listening(t)
	third, unused := listening(t)
	early, err := net.Dial("tcp", byName)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = early.Close() }()
	m.pass("sluice.socket", first)
	m.pass("named", second)
	m.pass("stranger", third)
	g := runIn(t, `listeners: { http: { bind: "`+byAddress+`" }, named: { bind: "127.0.0.1:1" } }`+answering, m.environment())
	m.expect("READY=1\n.*")
	answers(t, byAddress)
	answers(t, byName)
	_ = early.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(early, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if b, err := io.ReadAll(early); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 204 ") {
		t.Errorf("%q, %v", b, err)
	}
	for _, l := range g.status().Listeners {
		if want := map[string]string{"http": byAddress, "named": byName}[l.Name]; !slices.Equal(l.Binds, []string{want}) {
			t.Errorf("listener %s listens on %v, want %s", l.Name, l.Binds, want)
		}
	}
	log := g.log.String()
	for _, want := range []string{
		`msg="listening on sockets that systemd passed" listener=named bind=127.0.0.1:1 name=named address=` + byName,
		`level=WARN msg="a socket that systemd passed is not used`, `\"stranger\" (` + unused,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}

	// They stay over a reload.
	g.write(`listeners: { http: { bind: "` + byAddress + `" }, named: { bind: "127.0.0.1:1" }, more: { bind: "127.0.0.1:0" } }` + answering)
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	answers(t, byName)
}

// What the gateway has opened it leaves with systemd; who connects while nobody runs is served by the next one, with whatever
// number of loops, and an address that is listened on no longer is closed.
func TestSystemdStoresSockets(t *testing.T) {
	m := newManager(t)
	kept, gone := vacant.Address(t), vacant.Address(t)
	g := runIn(t, `listeners: { http: { bind: ["`+kept+`", "127.0.0.1:0"] }, gone: { bind: "`+gone+`" } }`+answering, m.environment())
	m.expect("FDSTORE=1\nFDNAME=" + systemd.Name(kept) + "\nFDPOLL=0")
	m.expect("FDSTORE=1\nFDNAME=" + systemd.Name(gone) + "\nFDPOLL=0")
	m.expect("READY=1\n.*")
	g.write(`listeners: { http: { bind: ["` + kept + `", "127.0.0.1:0"] } }` + answering)
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	m.expect("FDSTOREREMOVE=1\nFDNAME=" + systemd.Name(gone))
	m.expect("READY=1\n.*")
	if c, err := net.Dial("tcp", gone); err == nil {
		_ = c.Close()
		t.Error("an address that nobody listens on takes connections")
	}
	g.stop()
	m.expect("STOPPING=1\n.*")
	stored := m.inStore()
	if len(stored) != 1 || len(stored[systemd.Name(kept)]) != 2 {
		t.Fatalf("stored: %v", stored)
	}

	var waiting []net.Conn
	defer func() {
		for _, c := range waiting {
			_ = c.Close()
		}
	}()
	for range 20 {
		c, err := net.Dial("tcp", kept)
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, c)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}
	m.pass(systemd.Name(kept), stored[systemd.Name(kept)]...)
	runIn(t, `listeners: { http: { bind: "`+kept+`" } }`+strings.Replace(answering, "loops: 2", "loops: 1", 1), m.environment())
	for i, c := range waiting {
		_ = c.SetDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 204 ") {
			t.Fatalf("connection %d: %q, %v", i, b, err)
		}
	}
}

// A stored socket for which the new configuration has no use is not in the way of one with the same port.
func TestSystemdStoredSocketIsNotInTheWay(t *testing.T) {
	m := newManager(t)
	address := vacant.Address(t)
	g := runIn(t, `listeners: { http: { bind: "`+address+`" } }`+answering, m.environment())
	m.expect("READY=1\n.*")
	g.stop()
	m.expect("STOPPING=1\n.*")
	m.pass(systemd.Name(address), m.inStore()[systemd.Name(address)]...)
	wide := strings.Replace(address, "127.0.0.1", "0.0.0.0", 1)
	runIn(t, `listeners: { http: { bind: "`+wide+`" } }`+answering, m.environment())
	m.expect("FDSTOREREMOVE=1\nFDNAME=" + systemd.Name(address))
	answers(t, address)
}

// A listener that gets another name keeps its address in the store, and the sockets of the old name go.
func TestSystemdStoreFollowsANewName(t *testing.T) {
	m := newManager(t)
	address := vacant.Address(t)
	g := runIn(t, `listeners: { http: { bind: "`+address+`" } }`+answering, m.environment())
	m.expect("READY=1\n.*")
	g.write(`listeners: { web: { bind: "` + address + `" } }` + answering)
	if err := g.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	m.expect("FDSTOREREMOVE=1\n.*")
	m.expect("FDSTORE=1\n(?s:.*)")
	m.expect("READY=1\n.*")
	for range 20 { // a socket that systemd alone still held would take some of these for good
		answers(t, address)
	}
}

func TestAssign(t *testing.T) {
	socket := func(fd int, name, address string) systemd.Socket {
		s := systemd.Socket{FD: fd, Name: name, Listening: true}
		if path, unix := strings.CutPrefix(address, "unix:"); unix {
			s.Path = path
		} else {
			s.Addr = netip.MustParseAddrPort(address)
		}
		return s
	}
	listeners := []config.Listener{
		{Name: "https", Binds: []config.Bind{{Addr: netip.MustParseAddrPort("127.0.0.1:8443")}, {Addr: netip.MustParseAddrPort("[::]:443")}}},
		{Name: "local", Binds: []config.Bind{{Path: "/run/s"}}},
	}
	f := func(passed []systemd.Socket, want map[bindKey][]int, wantUnused ...int) {
		t.Helper()
		used, unused := assign(passed, listeners)
		for key := range used {
			var got []int
			for _, s := range used[key] {
				got = append(got, s.FD)
			}
			if !slices.Equal(got, want[key]) {
				t.Errorf("%v gets %v, want %v", key, got, want[key])
			}
		}
		var got []int
		for _, s := range unused {
			got = append(got, s.FD)
		}
		if !slices.Equal(got, wantUnused) {
			t.Errorf("unused are %v, want %v", got, wantUnused)
		}
	}
	first, second, local := bindKey{"https", 0}, bindKey{"https", 1}, bindKey{"local", 0}
	f(nil, nil)
	// The address counts before the name, also where the first bind of that name could have the socket.
	f([]systemd.Socket{socket(3, "https", "[::]:443")}, map[bindKey][]int{second: {3}})
	f([]systemd.Socket{socket(3, "", "unix:/run/s"), socket(4, "x", "[::]:443"), socket(5, "x", "[::]:443")},
		map[bindKey][]int{second: {4, 5}, local: {3}})
	f([]systemd.Socket{socket(3, "https", "10.0.0.1:4000")}, map[bindKey][]int{first: {3}})
	// On a host without IPv6 a bind to [::] has an address of IPv4, and its name in the store.
	f([]systemd.Socket{socket(3, "[%3A%3A]%3A443", "0.0.0.0:443")}, map[bindKey][]int{second: {3}})
	// Sockets of two addresses do not become one bind's.
	f([]systemd.Socket{socket(3, "local", "10.0.0.1:1"), socket(4, "local", "10.0.0.2:1"), socket(5, "local", "10.0.0.1:1")},
		map[bindKey][]int{local: {3, 5}}, 4)
	f([]systemd.Socket{{FD: 3, Name: "local"}, socket(4, "other", "10.0.0.2:1")}, nil, 3, 4)
}
