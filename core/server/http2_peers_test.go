package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/http2"
)

// h2Config sends everything to one upstream. protocols are the listener's.
func h2Config(upstream, protocols string) string {
	return `
loops: 2
access_log: { to: off }
log: { level: error }
listeners:
  http:
    bind: "127.0.0.1:0"
    protocols: ` + protocols + `
upstreams: { a: { endpoints: ["` + upstream + `"] } }
routes: [{ match: "/*", to: a }]
`
}

// gate is a gateway whose insides a test can see. It takes no signals: to drain and reload there is running.
type gate struct {
	t testing.TB
	*Server
	addr string
}

func newGate(t testing.TB, text string) *gate {
	t.Helper()
	// Memory is not looked at, which allocates now and then: some of these tests count allocations.
	cfg, problems := config.Parse("sluice.yaml", []byte(text+"\nadmin: off\ntuning: { shed_above: off }\n"), config.Env{LookupEnv: os.LookupEnv, ReadFile: os.ReadFile})
	if cfg == nil {
		t.Fatal(problems)
	}
	log := &journal{}
	s := &Server{options: Options{Version: "test", Stderr: log}}
	t.Cleanup(func() {
		s.close()
		if strings.Contains(log.String(), "panic") {
			t.Errorf("panic in the log:\n%s", log)
		}
	})
	if err := s.start(cfg); err != nil {
		t.Fatal(err)
	}
	return &gate{t: t, Server: s, addr: s.listeners[0].binds[0].sockets.String()}
}

// counters are those of all loops.
func (g *gate) counters() (sum http2.Counters) {
	onEach(g.loops, func(i int) {
		c := g.http2[i].Counters()
		sum.Connections += c.Connections
		sum.Streams += c.Streams
		sum.Resets += c.Resets
		for i, n := range c.Calm {
			sum.Calm[i] += n
		}
	})
	return sum
}

// calmed is how many connections were ended for a reason.
func (g *gate) calmed(reason string) uint64 {
	g.t.Helper()
	for i, r := range http2.CalmReasons() {
		if r == reason {
			return g.counters().Calm[i]
		}
	}
	g.t.Fatalf("no such reason: %q", reason)
	return 0
}

// upstreams is the number of open connections to the upstream.
func (g *gate) upstreams() int {
	return g.state.Load().compiled.Upstreams[0].Endpoints()[0].Open()
}

// active is the number of exchanges under way.
func (g *gate) tunnels() (n int) {
	onEach(g.loops, func(i int) {
		for _, u := range g.state.Load().compiled.Upstreams {
			n += u.Tunnels(i)
		}
	})
	return n
}

func (g *gate) active() (n int) {
	onEach(g.loops, func(i int) { n += g.workers[i].Active() })
	return n
}

// newH2Client gives the real client, by prior knowledge, on connections of its own.
func newH2Client(t testing.TB) *http.Client {
	transport := &http.Transport{DisableCompression: true, Protocols: &http.Protocols{}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// rawH2 is a client of HTTP/2 that says what it likes.
type rawH2 struct {
	t      testing.TB
	conn   net.Conn
	framer *xhttp2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
}

// dialRawH2 opens a connection and announces settings.
func dialRawH2(t testing.TB, addr string, settings ...xhttp2.Setting) *rawH2 {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c := &rawH2{t: t, conn: conn, framer: xhttp2.NewFramer(conn, conn)}
	c.framer.AllowIllegalWrites = true
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.hpack = hpack.NewEncoder(&c.block)
	if _, err := io.WriteString(conn, xhttp2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.framer.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return c
}

// encode gives the block of a header section: names and values by turns.
func (c *rawH2) encode(fields ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return c.block.Bytes()
}

// headers opens a stream. An error means that the gateway has closed the connection.
func (c *rawH2) headers(id uint32, end bool, fields ...string) error {
	const most = 16 << 10 // in a frame
	block := c.encode(fields...)
	first := block[:min(len(block), most)]
	block = block[len(first):]
	err := c.framer.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: len(block) == 0, BlockFragment: first})
	for err == nil && len(block) > 0 {
		next := block[:min(len(block), most)]
		block = block[len(next):]
		err = c.framer.WriteContinuation(id, len(block) == 0, next)
	}
	return err
}

// requestFields are those of a plain request, and more.
func requestFields(method, path string, more ...string) []string {
	return append([]string{":method", method, ":scheme", "http", ":authority", "a.example", ":path", path}, more...)
}

func (c *rawH2) get(id uint32, path string) error {
	return c.headers(id, true, requestFields("GET", path)...)
}

// goneAway is how a gateway ends a connection.
type goneAway struct {
	code xhttp2.ErrCode
	last uint32
	text string
}

func (e *goneAway) Error() string { return fmt.Sprintf("GOAWAY %v (%s)", e.code, e.text) }

// outcome reads until the stream has ended: "200 16" is an answer with so many bytes, "reset PROTOCOL_ERROR" a reset. It opens
// the windows for what comes. An error is the connection's end.
func (c *rawH2) outcome(id uint32) (string, error) {
	status, size := "", 0
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return "", err
		}
		switch f := f.(type) {
		case *xhttp2.SettingsFrame:
			if !f.IsAck() {
				_ = c.framer.WriteSettingsAck()
			}
		case *xhttp2.GoAwayFrame:
			if f.ErrCode != xhttp2.ErrCodeNo {
				return "", &goneAway{f.ErrCode, f.LastStreamID, string(f.DebugData())}
			}
		}
		if f.Header().StreamID != id {
			continue
		}
		switch f := f.(type) {
		case *xhttp2.RSTStreamFrame:
			return "reset " + f.ErrCode.String(), nil
		case *xhttp2.MetaHeadersFrame:
			if s := f.PseudoValue("status"); s != "" {
				status = s
			}
			if f.StreamEnded() && status[0] != '1' {
				return fmt.Sprint(status, " ", size), nil
			}
		case *xhttp2.DataFrame:
			size += len(f.Data())
			if f.StreamEnded() {
				return fmt.Sprint(status, " ", size), nil
			}
			if n := f.Length; n > 0 {
				_ = c.framer.WriteWindowUpdate(0, n)
				_ = c.framer.WriteWindowUpdate(id, n)
			}
		}
	}
}

// ending reads until the connection has ended, and says how: an error that is a *goneAway if the gateway said why.
func (c *rawH2) ending() error {
	var why *goneAway
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			if why != nil {
				return why
			}
			return err
		}
		if g, ok := f.(*xhttp2.GoAwayFrame); ok {
			why = &goneAway{g.ErrCode, g.LastStreamID, string(g.DebugData())}
		}
	}
}

// mustAnswer checks that the gateway answers others.
func (g *gate) mustAnswer(client *http.Client, path string) {
	g.t.Helper()
	res, err := client.Get("http://" + g.addr + path)
	if err != nil {
		g.t.Errorf("another connection is not served: %v", err)
		return
	}
	_, err = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != 200 {
		g.t.Errorf("another connection is not served: %s, %v", res.Status, err)
	}
}

// wantCalm checks that a connection ended with ENHANCE_YOUR_CALM.
func wantCalm(t testing.TB, err error) {
	t.Helper()
	var gone *goneAway
	if !errors.As(err, &gone) || gone.code != xhttp2.ErrCodeEnhanceYourCalm {
		t.Errorf("the connection ended with %v, want ENHANCE_YOUR_CALM", err)
	}
}

// fields reads until the stream has ended and gives all the fields of its sections; "end" says what ended it.
func (c *rawH2) fields(id uint32) (map[string]string, error) {
	got := map[string]string{}
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return got, err
		}
		if f.Header().StreamID != id {
			continue
		}
		switch f := f.(type) {
		case *xhttp2.RSTStreamFrame:
			got["end"] = "reset " + f.ErrCode.String()
			return got, nil
		case *xhttp2.MetaHeadersFrame:
			for _, field := range f.Fields {
				got[field.Name] = field.Value
			}
			if f.StreamEnded() {
				got["end"] = "headers"
				return got, nil
			}
		case *xhttp2.DataFrame:
			if f.StreamEnded() {
				got["end"] = "data"
				return got, nil
			}
		}
	}
}
