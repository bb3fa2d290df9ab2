package server

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
)

// A rankedUpstream answers with orderedBytes, which fit into the buffers of the kernel. "?priority=" is what it says of the answer itself.
type rankedUpstream struct {
	addr    string
	written atomic.Int64 // answers
	huge    atomic.Int64 // bytes of /huge
}

const orderedBytes = 100 << 10

func newRankedUpstream(t *testing.T) *rankedUpstream {
	u := &rankedUpstream{}
	u.addr = serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.FormValue("priority"); p != "" {
			w.Header().Set("Priority", p)
		}
		size := int64(orderedBytes)
		switch r.URL.Path {
		case "/huge":
			size = 64 * mebibyte
		case "/window":
			size = streamInitial - 1
		}
		if r.URL.Path != "/unknown" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		if r.URL.Path == "/huge" {
			_, _ = io.Copy(io.MultiWriter(w, counter{&u.huge}), &pattern{size: size})
			return
		}
		_, _ = io.Copy(w, &pattern{size: size})
		u.written.Add(1)
	})})
	return u
}

// counter counts the bytes that are written to it.
type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// ranked is a request with a priority; update is what a PRIORITY_UPDATE says of it, before it comes with foretold, else while it waits.
type ranked struct {
	path, priority, update string
	foretold               bool
}

// TestHTTP2Priorities shows in which order answers come that wait for the same window, or for a client that does not read
// (RFC 9218, 10). Requests are numbered from 0, in the order in which they were sent.
func TestHTTP2Priorities(t *testing.T) {
	plain := func(priority string) ranked { return ranked{path: "/", priority: priority} }
	for _, c := range []struct {
		name     string
		requests []ranked
		whole    []int // these one after the other
		inTurn   []int // then these, a frame of each by turns
	}{
		{"urgency", []ranked{plain("u=5"), plain("u=1"), plain(""), plain("u=0"), plain("u=7")}, []int{3, 1, 2, 0, 4}, nil},
		{"of one urgency", []ranked{plain(""), plain("u=3"), plain("i=?0"), plain("")}, []int{0, 1, 2, 3}, nil},
		{"incremental", []ranked{plain("i"), plain("u=3, i"), plain("i=?1")}, nil, []int{0, 1, 2}},
		{"both", []ranked{plain("i"), plain(""), plain("i"), plain("u=2")}, []int{3, 1}, []int{0, 2}},
		{"not understood", []ranked{plain("u=9"), plain("u=1,"), plain("u=2"), plain("i=1")}, []int{2, 0, 1, 3}, nil},
		{"update", []ranked{plain(""), plain("u=6"), {path: "/", update: "u=1"}, {path: "/", priority: "u=0", update: "i, u=6"}, plain("u=6, i")}, []int{2, 0, 1}, []int{3, 4}},
		{"update before the request", []ranked{plain(""), {path: "/", priority: "u=7", update: "u=0", foretold: true}}, []int{1, 0}, nil},
		{"the origin says otherwise", []ranked{plain("u=1"), {path: "/?priority=u%3D0", priority: "u=4"}, {path: "/?priority=i", priority: "u=5"}, plain("u=5, i")}, []int{1, 0}, []int{2, 3}},
		{"without an end", []ranked{{path: "/unknown"}, plain(""), {path: "/unknown"}}, []int{1}, []int{0, 2}},
		{"without an end, but whole", []ranked{{path: "/unknown", priority: "i=?0"}, plain("")}, []int{0, 1}, nil},
	} {
		for how, prepare := range map[string]func(*testing.T, *rankedConn){"shut window": shutWindow, "slow reader": readNothing} {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				for try := 1; ; try++ { // on a busy machine an answer may come too late for its turn
					got := takeRanked(t, c.requests, prepare)
					err := checkOrder(got, c.whole, c.inTurn)
					if err == nil {
						return
					}
					if try == 3 {
						t.Fatalf("%v: %v", err, got)
					}
				}
			})
		}
	}
}

// rankedConn is a client that lets answers gather at the gateway.
type rankedConn struct {
	*rawH2
	up      *rankedUpstream
	before  int64 // answers that were written before those that are ordered
	granted bool  // the window of the connection is opened by a frame each time
}

// shutWindow has the window of the connection used up.
func shutWindow(t *testing.T, c *rankedConn) {
	if err := c.get(1, "/window"); err != nil {
		t.Fatal(err)
	}
	for size := 0; size < streamInitial-1; {
		f, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := f.(*xhttp2.DataFrame); ok {
			size += len(f.Data())
		}
	}
	c.before, c.granted = 1, true
}

// readNothing has an answer of the least urgency fill whatever is between the gateway and the client.
func readNothing(t *testing.T, c *rankedConn) {
	if err := c.framer.WriteWindowUpdate(0, 1<<30); err != nil {
		t.Fatal(err)
	}
	if err := c.headers(1, true, requestFields("GET", "/huge", "priority", "u=7, i")...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing moves", func() bool {
		before := c.up.huge.Load()
		time.Sleep(30 * time.Millisecond) // there is no sign of what does not happen
		return before > 0 && c.up.huge.Load() == before
	})
}

// takeRanked has all the answers wait, takes them, and gives the requests that the frames of body answered.
func takeRanked(t *testing.T, requests []ranked, prepare func(*testing.T, *rankedConn)) (order []int) {
	u := newRankedUpstream(t)
	g := newGate(t, h2Config(u.addr, "[h2c]"))
	c := &rankedConn{rawH2: dialRawH2(t, g.addr, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 30}), up: u}
	defer func() { _ = c.conn.Close() }()
	prepare(t, c)
	update := func(i int) {
		value := requests[i].update
		id := uint32(2*i + 3)
		if err := c.framer.WriteRawFrame(0x10, 0, 0, append([]byte{0, 0, 0, byte(id)}, value...)); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range requests {
		if r.foretold {
			update(i)
		}
		fields := requestFields("GET", r.path)
		if r.priority != "" {
			fields = append(fields, "priority", r.priority)
		}
		if err := c.headers(uint32(2*i+3), true, fields...); err != nil {
			t.Fatal(err)
		}
	}
	// Who looks at the loops some times has let them read what had come before.
	read := func() {
		for range 10 {
			onEach(g.loops, func(int) {})
		}
	}
	eventually(t, "the answers wait", func() bool { return u.written.Load() == c.before+int64(len(requests)) })
	read()
	for i, r := range requests {
		if r.update != "" && !r.foretold {
			update(i)
		}
	}
	if err := c.framer.WritePing(false, [8]byte{1}); err != nil {
		t.Fatal(err)
	}
	read()
	if c.granted {
		if err := c.framer.WriteWindowUpdate(0, 16<<10); err != nil {
			t.Fatal(err)
		}
	}
	for left := len(requests); left > 0; {
		f, err := c.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		d, ok := f.(*xhttp2.DataFrame)
		if !ok {
			continue
		}
		if c.granted && d.Length > 0 {
			if err := c.framer.WriteWindowUpdate(0, d.Length); err != nil {
				t.Fatal(err)
			}
		}
		if d.StreamID != 1 {
			order = append(order, int(d.StreamID-3)/2)
			if d.StreamEnded() {
				left--
			}
		}
	}
	return order
}

// checkOrder says where the frames are not in the order that is wanted.
func checkOrder(got, whole, inTurn []int) error {
	for _, i := range whole {
		n := 0
		for n < len(got) && got[n] == i {
			n++
		}
		if got = got[n:]; n == 0 || slices.Contains(got, i) {
			return fmt.Errorf("%d was not sent whole, in its turn", i)
		}
	}
	const frames = orderedBytes / (16 << 10)
	for n := range frames - 2 { // the last are shorter
		turn := slices.Clone(got[:min(len(inTurn), len(got))])
		slices.Sort(turn)
		if !slices.Equal(turn, inTurn) {
			return fmt.Errorf("turn %d was of %v, want %v", n, turn, inTurn)
		}
		got = got[len(turn):]
	}
	return nil
}
