package probe

import (
	"bufio"
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
)

// peer serves each connection by f until the test ends.
func peer(t *testing.T, network string, f func(c net.Conn)) string {
	t.Helper()
	at := "127.0.0.1:0"
	if network == "unix" {
		at = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close() //nolint:errcheck // the test is over
				f(c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		all.Wait()
	})
	if network == "unix" {
		return "unix:" + at
	}
	return ln.Addr().String()
}

// web is an HTTP server that speaks all of HTTP/1.1, h2c and, with TLS, h2.
func web(t *testing.T, secure bool, f http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(f)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.Protocols.SetHTTP2(true)
	if s.EnableHTTP2 = secure; secure {
		s.TLS = &cryptotls.Config{ClientAuth: cryptotls.RequestClientCert}
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// trusting believes a server of httptest's, whose certificate is for example.com, and shows a certificate of its own.
func trusting(s *httptest.Server) *cryptotls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &cryptotls.Config{RootCAs: pool, ServerName: "example.com", NextProtos: []string{"http/1.1"}, Certificates: s.TLS.Certificates}
}

func addressOf(s *httptest.Server) string { return s.Listener.Addr().String() }

// asks runs one probe and compares what it came to: "" for a pass, else its kind and reason. It may take up to a second if it is not to pass
// in time, else for longer than a busy machine takes.
func asks(t *testing.T, q *Question, address, want string) {
	t.Helper()
	limit := 10 * time.Second
	if strings.HasPrefix(want, "timeout:") {
		limit = time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	f := q.Ask(ctx, &Endpoint{Address: address, Host: "up.example:80", Name: "up.example"})
	got := ""
	if f != nil {
		got = f.Kind.String() + ": " + f.Text
	}
	if !regexp.MustCompile("^(?:" + want + ")$").MatchString(got) {
		t.Errorf("got %q, want %q", got, want)
	}
	if took := time.Since(start); took > limit+5*time.Second {
		t.Errorf("took %s", took)
	}
}

func ok() []StatusRange { return []StatusRange{{200, 299}} }

func TestHTTP(t *testing.T) {
	var seen string
	answer := func(w http.ResponseWriter, r *http.Request) {
		seen = fmt.Sprintf("%s %s %s %s %s %s", r.Method, r.URL, r.Host, r.Proto, r.UserAgent(), r.Header["X-A"])
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/sick":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/long":
			_, _ = w.Write([]byte(strings.Repeat("x", MaxAnswer) + "ready"))
		default:
			_, _ = io.WriteString(w, "all is ready")
		}
	}
	plain, secure := web(t, false, answer), web(t, true, answer)
	for _, c := range []struct {
		name, address string
		q             Question
		proto         string
	}{
		{"h1", addressOf(plain), Question{}, "HTTP/1.1"},
		{"h2c", addressOf(plain), Question{HTTP2: true}, "HTTP/2.0"},
		{"TLS", addressOf(secure), Question{TLS: trusting(secure)}, "HTTP/1.1"},
		{"h2", addressOf(secure), Question{TLS: trusting(secure), HTTP2: true}, "HTTP/2.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := func(h HTTP, want string) {
				t.Helper()
				q := c.q
				q.HTTP = &h
				asks(t, &q, c.address, want)
			}
			f(HTTP{Method: "GET", Path: "/ok?a=b", Statuses: ok()}, "")
			if want := "GET /ok?a=b up.example:80 " + c.proto + " sluice-check []"; seen != want {
				t.Errorf("asked %q, want %q", seen, want)
			}
			f(HTTP{Method: "HEAD", Path: "/", Host: "other.example", Fields: http.Header{"X-A": {"b", "c"}, "User-Agent": {"me"}}, Statuses: ok()}, "")
			if want := "HEAD / other.example " + c.proto + " me [b c]"; seen != want {
				t.Errorf("asked %q, want %q", seen, want)
			}
			f(HTTP{Method: "GET", Path: "/sick", Statuses: ok()}, "failure: status 503")
			f(HTTP{Method: "GET", Path: "/sick", Statuses: []StatusRange{{200, 200}, {500, 503}}}, "")
			f(HTTP{Method: "GET", Path: "/moved", Statuses: ok()}, "failure: status 302")
			f(HTTP{Method: "GET", Path: "/ok", Statuses: ok(), Body: regexp.MustCompile("ready$")}, "")
			f(HTTP{Method: "GET", Path: "/ok", Statuses: ok(), Body: regexp.MustCompile("^ready")}, "failure: status 200, but the body does not match")
			f(HTTP{Method: "GET", Path: "/long", Statuses: ok()}, "")
			f(HTTP{Method: "GET", Path: "/long", Statuses: ok(), Body: regexp.MustCompile("ready")}, "failure: .* does not match")
		})
	}
	h := &HTTP{Method: "GET", Path: "/ok", Statuses: ok()}
	resumed := trusting(secure)
	resumed.ClientSessionCache = cryptotls.NewLRUClientSessionCache(1)
	verified := 0
	resumed.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { // which a resumed session does without
		verified++
		return nil
	}
	for range 2 {
		asks(t, &Question{HTTP: h, TLS: resumed}, addressOf(secure), "")
	}
	if verified != 2 {
		t.Errorf("the certificate was verified %d times by 2 probes", verified)
	}
	asks(t, &Question{HTTP: h, TLS: &cryptotls.Config{RootCAs: x509.NewCertPool()}}, addressOf(secure), "network_failure: tls: .*(certificate|up.example).*")
	asks(t, &Question{HTTP: h, TLS: trusting(secure)}, addressOf(plain), "network_failure: tls: .*")
	asks(t, &Question{HTTP: h}, addressOf(secure), "failure: status 400")
	_, port, _ := net.SplitHostPort(addressOf(plain))
	var number uint16
	_, _ = fmt.Sscan(port, &number)
	asks(t, &Question{HTTP: h, Port: number}, "127.0.0.1:1", "")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	asks(t, &Question{HTTP: h}, addressOf(plain), "")
}

// Whatever an endpoint does, a probe ends in its time, with a reason, and does not take more memory than it should.
func TestHostileAnswers(t *testing.T) {
	request := func(c net.Conn) { _, _ = http.ReadRequest(bufio.NewReader(c)) }
	endless := func(c net.Conn, head, more string) {
		request(c)
		_, err := io.WriteString(c, head)
		for err == nil {
			_, err = io.WriteString(c, more)
		}
	}
	drip := func(c net.Conn, head, more string) {
		request(c)
		_, err := io.WriteString(c, head)
		for err == nil {
			time.Sleep(10 * time.Millisecond) // which is what it does
			_, err = io.WriteString(c, more)
		}
	}
	until := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for name, c := range map[string]struct {
		f    func(c net.Conn)
		want string
	}{
		"silent":           {until, "timeout: timeout: answer"},
		"closes":           {request, "network_failure: answer: (closed by the endpoint|reset)"},
		"no HTTP":          {func(c net.Conn) { request(c); _, _ = io.WriteString(c, "SSH-2.0-x\x1b[2J\r\n"); until(c) }, "network_failure: answer: .*malformed.*"},
		"endless headers":  {func(c net.Conn) { endless(c, "HTTP/1.1 200 OK\r\n", "A: b\r\n") }, "network_failure: answer: .*exceeded.*"},
		"endless field":    {func(c net.Conn) { endless(c, "HTTP/1.1 200 OK\r\nA: ", strings.Repeat("x", 1000)) }, "network_failure: answer: .*exceeded.*"},
		"endless 1xx":      {func(c net.Conn) { endless(c, "", "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n") }, "network_failure: answer: .*"},
		"endless body":     {func(c net.Conn) { endless(c, "HTTP/1.1 200 OK\r\n\r\n", strings.Repeat("x", 1000)) }, ""},
		"endless chunks":   {func(c net.Conn) { endless(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n") }, ""},
		"dripping headers": {func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\n", "A: b\r\n") }, "timeout: timeout: answer"},
		"dripping body":    {func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\n\r\n", "x") }, "timeout: timeout: body"},
		"short body": {func(c net.Conn) {
			request(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
		}, "network_failure: body: closed by the endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			asks(t, &Question{HTTP: &HTTP{Method: "GET", Path: "/", Statuses: ok()}}, peer(t, "tcp", c.f), c.want)
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
				t.Errorf("took %d bytes", grown)
			}
		})
	}
	none := peer(t, "tcp", func(net.Conn) {})
	h := &HTTP{Method: "GET", Path: "/", Statuses: ok()}
	asks(t, &Question{HTTP: h, HTTP2: true}, peer(t, "tcp", func(c net.Conn) { request(c); _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") }), "network_failure: answer: .*")
	asks(t, &Question{HTTP: h}, none, "network_failure: .*")
	asks(t, &Question{HTTP: h}, "127.0.0.1:1", "network_failure: connect: refused")
	asks(t, &Question{HTTP: h}, "unix:/nowhere", "network_failure: connect: no such file or directory")
	asks(t, &Question{HTTP: h, TLS: &cryptotls.Config{}}, peer(t, "tcp", until), "timeout: timeout: tls")
}

func TestTCP(t *testing.T) {
	redis := func(c net.Conn) {
		line, err := bufio.NewReader(c).ReadString('\n')
		if err == nil && line == "PING\r\n" {
			for _, b := range []byte("-hello +PONG\r\n") {
				_, _ = c.Write([]byte{b})
			}
		}
	}
	f := func(q TCP, serve func(c net.Conn), want string) {
		t.Helper()
		for _, network := range []string{"tcp", "unix"} {
			asks(t, &Question{TCP: &q}, peer(t, network, serve), want)
		}
	}
	f(TCP{"PING\r\n", "+PONG"}, redis, "")
	f(TCP{"PING\r\n", "+PANG"}, redis, "failure: the answer has not what is expected")
	f(TCP{"", ""}, redis, "")
	f(TCP{"QUIT\r\n", "+PONG"}, redis, "failure: .*expected|network_failure: answer: reset")
	f(TCP{"", "220 "}, func(c net.Conn) { _, _ = io.WriteString(c, "220 mail\r\n") }, "")
	f(TCP{"", "220 "}, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "timeout: timeout: answer")
	f(TCP{"", "220 "}, func(c net.Conn) {
		for err := error(nil); err == nil; {
			_, err = c.Write(make([]byte, 1000))
		}
	}, "failure: the first 65536 bytes of the answer have not what is expected")
	secure := web(t, true, nil)
	asks(t, &Question{TCP: &TCP{}, TLS: trusting(secure)}, addressOf(secure), "")
	asks(t, &Question{TCP: &TCP{}, TLS: &cryptotls.Config{}}, addressOf(secure), "network_failure: tls: .*")
}

// The PROXY header comes before everything else, TLS too.
func TestProxyHeader(t *testing.T) {
	for version, want := range map[int]string{1: "PROXY UNKNOWN\r\n", 2: "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"} {
		for _, secure := range []bool{false, true} {
			s := web(t, secure, func(w http.ResponseWriter, r *http.Request) {})
			at := peer(t, "tcp", func(c net.Conn) {
				head := make([]byte, len(want))
				if _, err := io.ReadFull(c, head); err != nil || string(head) != want {
					return
				}
				to, err := net.Dial("tcp", addressOf(s))
				if err != nil {
					return
				}
				defer to.Close() //nolint:errcheck // as c is
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = io.Copy(c, to)
				}()
				_, _ = io.Copy(to, c)
				_ = to.(*net.TCPConn).CloseWrite()
				<-done
			})
			q := &Question{HTTP: &HTTP{Method: "GET", Path: "/", Statuses: ok()}, Proxy: version}
			if secure {
				q.TLS = trusting(s)
			}
			asks(t, q, at, "")
			q.Proxy = 3 - version
			asks(t, q, at, "(network_failure|timeout): .*")
		}
	}
}

// A server of gRPC's own says how it and its services are.
func TestGRPC(t *testing.T) {
	secure := web(t, true, nil)
	for _, encrypted := range []bool{false, true} {
		var options []grpc.ServerOption
		q := Question{}
		if encrypted {
			options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(&secure.TLS.Certificates[0])))
			q.TLS = trusting(secure)
		}
		server, states := grpc.NewServer(options...), health.NewServer()
		healthpb.RegisterHealthServer(server, states)
		states.SetServingStatus("up", healthpb.HealthCheckResponse_SERVING)
		states.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(ln) }()
		f := func(service, want string) {
			t.Helper()
			one := q
			one.GRPC = &GRPC{service}
			asks(t, &one, ln.Addr().String(), want)
		}
		f("", "")
		f("up", "")
		f("down", "failure: NOT_SERVING")
		f("other", `failure: gRPC status "5"`)
		server.Stop()
		<-ended
		f("", "network_failure: connect: refused")
	}
	bare := grpc.NewServer() // without the service
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- bare.Serve(ln) }()
	asks(t, &Question{GRPC: &GRPC{}}, ln.Addr().String(), `failure: gRPC status "12"`)
	bare.Stop()
	<-ended
	body := ""
	plain := web(t, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = io.WriteString(w, body)
		w.Header().Set("Grpc-Status", "0")
	})
	for text, want := range map[string]string{
		"\x00\x00\x00\x00\x02\x08\x01":                          "",
		"\x00\x00\x00\x00\x05\x12\x01a\x08\x01":                 "", // a field that is not known here
		"\x00\x00\x00\x00\x00":                                  "failure: UNKNOWN",
		"\x00\x00\x00\x00\x02\x08\x63":                          "failure: serving status 99",
		"\x00\x00\x00\x00\x02\x08\x81":                          "failure: the message cannot be read",
		"\x00\x00\x00\x00\x01\x00":                              "failure: the message cannot be read",
		"\x01\x00\x00\x00\x02\x08\x01":                          "failure: the answer is not one message",
		"\x00\x00\x00\x00\x03\x08\x01":                          "failure: the answer is not one message",
		"\x00\xff\xff\xff\xff\x08\x01":                          "failure: the answer is not one message",
		"":                                                      "failure: the answer is not one message",
		"\x00\x00\x01\x00\x00" + strings.Repeat("a", MaxAnswer): "failure: the answer is larger than 65536 bytes",
	} {
		body = text
		asks(t, &Question{GRPC: &GRPC{}}, addressOf(plain), want)
	}
}

// FuzzServing: whatever an endpoint sends as the body of its answer is judged, and what gRPC's own code reads is judged likewise.
func FuzzServing(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02\x08\x01"))
	f.Add([]byte("\x00\x00\x00\x00\x05\x12\x01a\x08\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		passed := judgeServing(b) == nil
		var m healthpb.HealthCheckResponse
		whole := len(b) >= 5 && b[0] == 0 && int(b[1])<<24|int(b[2])<<16|int(b[3])<<8|int(b[4]) == len(b)-5
		if whole && proto.Unmarshal(b[5:], &m) == nil && (m.Status == healthpb.HealthCheckResponse_SERVING) != passed {
			t.Errorf("%q: passed %t, and the status is %s", b, passed, m.Status)
		}
		if !whole && passed {
			t.Errorf("%q passed", b)
		}
	})
}
