package tls

import (
	"bytes"
	cryptotls "crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// captured is a connection that takes what a client writes first, and ends.
type captured struct {
	net.Conn
	out bytes.Buffer
}

func (c *captured) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *captured) Read([]byte) (int, error)         { return 0, io.EOF }
func (c *captured) SetDeadline(time.Time) error      { return nil }
func (c *captured) SetReadDeadline(time.Time) error  { return nil }
func (c *captured) SetWriteDeadline(time.Time) error { return nil }

// helloOf gives what a client of crypto/tls begins with.
func helloOf(t testing.TB, c *cryptotls.Config) []byte {
	t.Helper()
	var wire captured
	if err := cryptotls.Client(&wire, c).Handshake(); err == nil {
		t.Fatal("the handshake succeeded")
	}
	return wire.out.Bytes()
}

// records puts a message into records of so many bytes.
func records(message []byte, size int) (b []byte) {
	for len(message) > 0 {
		n := min(size, len(message))
		b = append(b, 22, 3, 1)
		b = binary.BigEndian.AppendUint16(b, uint16(n))
		b = append(b, message[:n]...)
		message = message[n:]
	}
	return b
}

// hello makes a ClientHello of extensions, each of them type, length and data.
func hello(extensions string) []byte {
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00\x00\x02\x13\x01\x01\x00" + prefixed(2, extensions)
	return []byte("\x01" + prefixed(3, body))
}

func prefixed(bytes int, s string) string {
	n := ""
	for i := bytes - 1; i >= 0; i-- {
		n += string([]byte{byte(len(s) >> (8 * i))})
	}
	return n + s
}

func sni(names ...string) string {
	list := ""
	for _, n := range names {
		list += "\x00" + prefixed(2, n)
	}
	return "\x00\x00" + prefixed(2, prefixed(2, list))
}

func TestServerNameOfRealHellos(t *testing.T) {
	scratch := make([]byte, MaxHello)
	for _, config := range []*cryptotls.Config{
		{ServerName: "db.example.com"},
		{ServerName: "db.example.com", MaxVersion: cryptotls.VersionTLS12},
		{ServerName: "db.example.com", NextProtos: []string{"h2", strings.Repeat("x", 255), strings.Repeat("y", 255)}},
		{ServerName: "192.0.2.1"}, // of an address no name is sent
		{InsecureSkipVerify: true},
	} {
		b := helloOf(t, config)
		want := config.ServerName
		if want == "192.0.2.1" {
			want = ""
		}
		for _, size := range []int{1, 2, 3, 7, 100, 1 << 14} {
			wire := append(records(b[5:], size), "\x17\x03\x03\x00\x05early"...) // a record of early data is none of ours
			if len(wire) > MaxHello {
				wire = wire[:MaxHello]
			}
			name, whole, err := ServerName(wire, scratch)
			if err != nil || !whole || string(name) != want {
				t.Errorf("%q in records of %d bytes: %q, %v, %v", want, size, name, whole, err)
			}
		}
		for n := range b { // as it comes
			if _, whole, err := ServerName(b[:n], scratch); whole || err != nil {
				t.Fatalf("after %d of %d bytes: %v, %v", n, len(b), whole, err)
			}
		}
		if n := testing.AllocsPerRun(100, func() { _, _, _ = ServerName(b, scratch) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestServerNameRefuses(t *testing.T) {
	scratch := make([]byte, MaxHello)
	f := func(what string, b []byte) {
		t.Helper()
		if name, _, err := ServerName(b, scratch); !errors.Is(err, ErrHello) {
			t.Errorf("%s: %q, %v", what, name, err)
		}
	}
	in := func(message []byte) []byte { return records(message, 1<<14) }
	good := in(hello(sni("a.test")))
	if name, whole, err := ServerName(good, scratch); string(name) != "a.test" || !whole || err != nil {
		t.Fatalf("%q, %v, %v", name, whole, err)
	}
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	f("HTTP", []byte("GET / HTTP/1.1\r\n"))
	f("a byte of HTTP", []byte("G"))
	f("another record", change(0, 23))
	f("SSL 2", change(1, 2))
	f("another message", change(5, 2))
	f("an empty record", append([]byte("\x16\x03\x01\x00\x00"), good...))
	f("a record of 16 KiB and a byte", []byte("\x16\x03\x01\x40\x01"))
	f("a message of 16 MiB", []byte("\x16\x03\x01\x00\x04\x01\xff\xff\xff"))
	f("a message of more than may come", []byte("\x16\x03\x01\x00\x04\x01\x00\x40\x00"))
	f("two messages in a record", in(append(hello(sni("a.test")), hello("")...)))
	f("a record of something else between", append(append(bytes.Clone(good[:3]), 0, 3, good[5], good[6], good[7]), "\x14\x03\x03\x00\x01\x01"...))
	f("nothing in it", in([]byte("\x01\x00\x00\x00")))
	f("cut short", in([]byte("\x01"+prefixed(3, "\x03\x03"+strings.Repeat("r", 31)))))
	f("a long session", in([]byte("\x01"+prefixed(3, "\x03\x03"+strings.Repeat("r", 32)+prefixed(1, strings.Repeat("s", 33))+"\x00\x02\x13\x01\x01\x00"))))
	f("half a suite", in([]byte("\x01"+prefixed(3, "\x03\x03"+strings.Repeat("r", 32)+"\x00\x00\x03\x13\x01\x13\x01\x00"))))
	f("no suite", in([]byte("\x01"+prefixed(3, "\x03\x03"+strings.Repeat("r", 32)+"\x00\x00\x00\x01\x00"))))
	f("bytes after the extensions", in([]byte("\x01"+prefixed(3, string(hello("")[4:])+"x"))))
	f("an extension cut short", in(hello("\x00\x05\x00\x02x")))
	f("two server names", in(hello(sni("a.test", "b.test"))))
	f("two extensions with a server name", in(hello(sni("a.test")+"\x00\x05\x00\x00"+sni("b.test"))))
	f("an empty list", in(hello(sni())))
	f("an empty name", in(hello(sni(""))))
	f("a name of another kind", in(hello("\x00\x00"+prefixed(2, prefixed(2, "\x01"+prefixed(2, "a.test"))))))
	f("bytes after the list", in(hello("\x00\x00"+prefixed(2, prefixed(2, "\x00"+prefixed(2, "a.test"))+"x"))))
	f("a final dot", in(hello(sni("a.test."))))
	f("a line end", in(hello(sni("a.test\r\nX: y"))))
	f("a byte that is not of ASCII", in(hello(sni("ä.test"))))
	f("a name of 254 bytes", in(hello(sni(strings.Repeat("a", 254)))))
	f("records of a byte without end", records(bytes.Repeat([]byte{1, 0, 0x3f, 0xf0}, 4096), 1)[:MaxHello])
	f("a hello that is longer than may come", records(hello(sni("a.test")+"\x00\x15"+prefixed(2, strings.Repeat("\x00", 16000))), 100)[:MaxHello])
}

// FuzzServerName holds the parser against that of crypto/tls: where both take a ClientHello, they see the same name.
func FuzzServerName(f *testing.F) {
	f.Add(helloOf(f, &cryptotls.Config{ServerName: "db.example.com"}), uint16(1<<14))
	f.Add(helloOf(f, &cryptotls.Config{ServerName: "db.example.com", MaxVersion: cryptotls.VersionTLS12}), uint16(9))
	f.Add(records(hello(sni("a.test", "b.test")), 1<<14), uint16(0))
	f.Add(records(hello(sni("a.test")+"\x00\x05\x00\x00"+sni("b.test")), 1<<14), uint16(1))
	f.Add([]byte("\x16\x03\x01\x00\x00\x15\x03\x03\x00\x02\x01\x00"), uint16(3))
	scratch := make([]byte, MaxHello)
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		if size > 0 && len(b) > 5 {
			b = records(b[5:], int(size))
		}
		b = b[:min(len(b), MaxHello)]
		before := bytes.Clone(b)
		name, whole, err := ServerName(b, scratch)
		if !bytes.Equal(b, before) {
			t.Fatal("the bytes were changed")
		}
		if err != nil || !whole {
			if name != nil || whole {
				t.Fatal("a name of what was refused")
			}
			if err == nil && len(b) == MaxHello {
				t.Fatal("more is waited for than may come")
			}
			return
		}
		theirs, seen := "", false
		server := cryptotls.Server(&replayed{in: bytes.NewReader(b)}, &cryptotls.Config{GetConfigForClient: func(i *cryptotls.ClientHelloInfo) (*cryptotls.Config, error) {
			theirs, seen = i.ServerName, true
			return nil, io.EOF
		}})
		_ = server.Handshake()
		if seen && theirs != string(name) {
			t.Fatalf("got %q, crypto/tls %q", name, theirs)
		}
	})
}

// replayed is a connection on which b comes.
type replayed struct {
	captured
	in io.Reader
}

func (r *replayed) Read(p []byte) (int, error) { return r.in.Read(p) }

func TestNameTable(t *testing.T) {
	var table NameTable[int]
	for i, name := range []string{"a.test", "*.a.test", "*.b.a.test", "Big.Test."} {
		if err := table.Add(name, i+1); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"A.test", "*.A.test.", "", "a..b", "a b", "*.", "*.*.test", strings.Repeat("a", 64) + ".test", "ä.test"} {
		if err := table.Add(name, 9); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
	f := func(name string, want int) {
		t.Helper()
		got, found := table.Find(name)
		again, foundAgain := table.FindBytes([]byte(name))
		if got != want || found != (want != 0) || again != got || foundAgain != found {
			t.Errorf("%q: %d %v, %d %v, want %d", name, got, found, again, foundAgain, want)
		}
	}
	f("a.test", 1)
	f("A.TEST.", 1)
	f("x.a.test", 2)
	f("x.y.a.test", 2)
	f("b.a.test", 2)
	f("x.b.a.test", 3)
	f("x.y.b.a.test", 3)
	f("big.test", 4)
	f(".a.test", 0)
	f("test", 0)
	f("xa.test", 0)
	f("", 0)
	f(strings.Repeat("x.", 200)+"a.test", 0)
	if n := testing.AllocsPerRun(100, func() { table.Find("x.y.z.a.test") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if err := table.Add("*", 5); err != nil {
		t.Fatal(err)
	}
	if table.Add("*", 6) == nil {
		t.Error("* is taken twice")
	}
	f("", 5)
	f("test", 5)
	f("x.a.test", 2)
	if _, found := (*NameTable[int])(nil).Find("a.test"); found {
		t.Error("found in no table")
	}
}
