package handover

import (
	"bytes"
	"errors"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ends gives both sides as two processes would have them.
func ends(t *testing.T) (*Pair, *Taker) {
	t.Helper()
	p, err := NewPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	fd, err := unix.FcntlInt(p.Theirs().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	taker, err := NewTaker(os.NewFile(uintptr(fd), "theirs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(taker.Close)
	return p, taker
}

func descriptorsOpen(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// sockets opens so many pipes' ends under names: any descriptor will do.
func sockets(t *testing.T, names ...string) (all []Socket) {
	t.Helper()
	for _, name := range names {
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fd, []byte(name)); err != nil {
			t.Fatal(err)
		}
		all = append(all, Socket{name, fd})
	}
	return all
}

// Everything passes, in more packets than one, and nothing is left open.
func TestHandover(t *testing.T) {
	p, taker := ends(t)
	before := descriptorsOpen(t)
	var names []string
	for i := range 3*fdsPerPacket + 1 {
		names = append(names, strings.Repeat("x", i))
	}
	parts := []Part{{"a", 1, []byte("alpha")}, {"b", 7, bytes.Repeat([]byte("b"), 1<<20)}, {"empty", 2, []byte{}}}
	giver := Hello{PID: 1, Version: "old", Process: 3, Generation: 7, Started: time.Unix(5, 0).UTC()}
	type outcome struct {
		Answer
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		a, err := p.Offer(func() (Give, error) { return Give{giver, sockets(t, names...), parts}, nil })
		done <- outcome{a, err}
	}()
	got, err := taker.Take(Hello{PID: 2, Version: "new"})
	if err != nil || got.Problem != nil {
		t.Fatal(err, got.Problem)
	}
	if got.Hello != giver || !reflect.DeepEqual(got.Parts, parts) || len(got.Sockets) != len(names) {
		t.Fatalf("%+v, %d parts, %d sockets", got.Hello, len(got.Parts), len(got.Sockets))
	}
	for i, s := range got.Sockets {
		text := make([]byte, 1000)
		n, err := unix.Pread(s.FD, text, 0)
		if s.Name != names[i] || err != nil || string(text[:n]) != s.Name {
			t.Fatalf("socket %d is %q with %q, %v", i, s.Name, text[:n], err)
		}
	}
	CloseAll(got.Sockets)
	if err := errors.Join(taker.Leave(names), taker.Taken()); err != nil {
		t.Fatal(err)
	}
	o := <-done
	if o.err != nil || !o.Taken || o.Answer.Hello != (Hello{PID: 2, Version: "new"}) || len(o.Left) != len(names) || !o.Left[names[5]] {
		t.Fatalf("%+v", o)
	}
	if now := descriptorsOpen(t); now != before {
		t.Errorf("%d descriptors are open, were %d", now, before)
	}
}

// TestHelloOfOtherVersions: who tells less than this version is heard, and who tells more; numbers that cannot be are not known.
func TestHelloOfOtherVersions(t *testing.T) {
	f := func(hello string, want Hello) {
		t.Helper()
		p, taker := ends(t)
		if _, err := p.conn.Write([]byte(`{"kind":"later","more":{}}`)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.conn.Write([]byte(`{"kind":"end","hello":` + hello + `}`)); err != nil {
			t.Fatal(err)
		}
		if got, err := taker.Take(Hello{}); err != nil || got.Hello != want {
			t.Errorf("%s is %+v, %v", hello, got.Hello, err)
		}
		if _, err := taker.conn.Write([]byte(`{"kind":"hello","hello":` + hello + `}`)); err != nil {
			t.Fatal(err)
		}
		if err := taker.Taken(); err != nil {
			t.Fatal(err)
		}
		if a, err := p.Offer(func() (Give, error) { return Give{}, nil }); err != nil || a.Hello != want {
			t.Errorf("%s is %+v, %v", hello, a.Hello, err)
		}
	}
	f(`{"pid":1,"version":"v"}`, Hello{PID: 1, Version: "v"})
	f(`{"pid":1,"version":"v","process":2,"generation":3,"started":"2026-01-02T03:04:05Z","later":[1]}`,
		Hello{PID: 1, Version: "v", Process: 2, Generation: 3, Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
	f(`{"pid":1,"process":-2,"generation":-3}`, Hello{PID: 1})
	f(`{"pid":1,"process":9000000000000000,"generation":9000000000000000}`, Hello{PID: 1})
}

// What the draining process tells is heard in its order, and its end.
func TestFollow(t *testing.T) {
	p, taker := ends(t)
	want := Report{Connections: 3, Exchanges: 2, Since: time.Unix(1, 0).UTC(), Until: time.Unix(2, 0).UTC()}
	if err := errors.Join(p.Report(want), p.Last([]Part{{"c", 1, []byte("x")}})); err != nil {
		t.Fatal(err)
	}
	p.Close()
	var told []string
	err := taker.Follow(func(r Report) {
		if r != want {
			t.Errorf("%+v", r)
		}
		told = append(told, "report")
	}, func(parts []Part, err error) {
		if err != nil || len(parts) != 1 || string(parts[0].Body) != "x" {
			t.Errorf("%v, %v", parts, err)
		}
		told = append(told, "last")
	})
	if err != nil || !slices.Equal(told, []string{"report", "last"}) {
		t.Errorf("%q, %v", told, err)
	}
}

// An attempt that failed leaves nothing for the next, least of all descriptors: they would keep a listener alive that is closed.
func TestFlush(t *testing.T) {
	p, taker := ends(t)
	before := descriptorsOpen(t)
	all := sockets(t, "held")
	var kept [2]int
	if err := unix.Pipe2(kept[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	all = append(all, Socket{"pipe", kept[1]})
	if err := send(taker.conn, &packet{Kind: kindHello, Hello: &Hello{PID: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := send(taker.conn, &packet{Kind: kindFailed, Error: "old news"}); err != nil {
		t.Fatal(err)
	}
	if err := send(p.conn, &packet{Kind: kindSockets, Names: []string{"held", "pipe"}}, all[0].FD, all[1].FD); err != nil {
		t.Fatal(err)
	}
	CloseAll(all)
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	// The writing end was on its way only: now that nobody has it the reading end has ended.
	if n, err := unix.Read(kept[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the descriptor on its way is held: %d, %v", n, err)
	}
	_ = unix.Close(kept[0])
	p.Recall()
	if a, err := p.Offer(func() (Give, error) { return Give{}, errors.New("asked") }); err != nil || a.Failed != "" || a.Hello.PID != 0 {
		t.Errorf("the next attempt hears of the one before: %+v, %v", a, err)
	}
	if now := descriptorsOpen(t); now != before {
		t.Errorf("%d descriptors are open, were %d", now, before)
	}
}

func TestOfferOutcomes(t *testing.T) {
	everything := func() (Give, error) { return Give{}, nil }
	for _, c := range []struct {
		name string
		say  func(*Taker) error
		want Answer
	}{
		{"failed", func(t *Taker) error { return t.Failed("no luck", "fate") }, Answer{Failed: "no luck", Reason: "fate"}},
		{"failed without a word", func(t *Taker) error { return t.Failed("", "") }, Answer{Failed: "it does not say why"}},
		{"an unknown kind first", func(t *Taker) error {
			return errors.Join(send(t.conn, &packet{Kind: "later"}), t.Taken())
		}, Answer{Taken: true}},
	} {
		p, taker := ends(t)
		if err := c.say(taker); err != nil {
			t.Fatal(err)
		}
		a, err := p.Offer(everything)
		if err != nil || a.Failed != c.want.Failed || a.Reason != c.want.Reason || a.Taken != c.want.Taken {
			t.Errorf("%s: %+v, %v", c.name, a, err)
		}
	}
	p, taker := ends(t)
	if _, err := taker.conn.Write([]byte("no JSON")); err != nil {
		t.Fatal(err)
	}
	if a, err := p.Offer(everything); err == nil {
		t.Errorf("%+v of what is no packet", a)
	}
}

// A taker whose other side is gone, or sends what does not add up, says so.
func TestTakeRefuses(t *testing.T) {
	p, taker := ends(t)
	if err := send(p.conn, &packet{Kind: kindSockets, Names: []string{"one"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := taker.Take(Hello{}); err == nil || !strings.Contains(err.Error(), "0 descriptors came for 1 names") {
		t.Error(err)
	}
	p, taker = ends(t)
	if err := p.conn.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := taker.Take(Hello{}); err == nil {
		t.Error("took over from nobody")
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewTaker(file); err == nil {
		t.Error("took a file for a socket")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // at the end of a test
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f, err := conn.(*net.TCPConn).File()
	_ = conn.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewTaker(f); err == nil {
		t.Error("took a TCP connection")
	}
}

func TestStateDamaged(t *testing.T) {
	parts := []Part{{"first", 1, []byte("one")}, {"second", 2, []byte("two")}, {"third", 3, []byte("three")}}
	whole, err := Encode(parts)
	if err != nil {
		t.Fatal(err)
	}
	names := func(parts []Part) (all []string) {
		for _, p := range parts {
			all = append(all, p.Name)
		}
		return all
	}
	damaged := slices.Clone(whole)
	damaged[bytes.Index(damaged, []byte("two"))] ^= 1
	version := slices.Clone(whole)
	version[bytes.Index(version, []byte("second"))+len("second")+1] ^= 1
	for _, c := range []struct {
		name string
		b    []byte
		want []string
	}{
		{"whole", whole, []string{"first", "second", "third"}},
		{"a part is damaged", damaged, []string{"first", "third"}},
		{"its version is", version, []string{"first", "third"}},
		{"it breaks off", whole[:len(whole)-1], []string{"first", "second"}},
		{"of another form", append([]byte("x"), whole...), nil},
		{"empty", nil, nil},
	} {
		got, err := Decode(c.b)
		if !slices.Equal(names(got), c.want) || (err == nil) != (c.name == "whole") {
			t.Errorf("%s: %q, %v", c.name, names(got), err)
		}
	}
	if _, err := Encode([]Part{{"", 1, nil}}); err == nil {
		t.Error("a part without a name")
	}
}

// The file in memory cannot be changed by whoever has it.
func TestStateIsSealed(t *testing.T) {
	f, err := store([]Part{{"a", 1, []byte("secret")}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // at the end of a test
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it was written to")
	}
	if f.Truncate(0) == nil {
		t.Error("it was cut")
	}
	if parts, err := load(f); err != nil || len(parts) != 1 {
		t.Errorf("%v, %v", parts, err)
	}
}

func FuzzDecode(f *testing.F) {
	whole, err := Encode([]Part{{"first", 1, []byte("one")}, {"second", 2, nil}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Fuzz(func(t *testing.T, b []byte) {
		parts, err := Decode(b)
		if err != nil {
			return
		}
		back, err := Encode(parts)
		if err != nil || !bytes.Equal(back, b) {
			t.Errorf("%x becomes %x, %v", b, back, err)
		}
	})
}
