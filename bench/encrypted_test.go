package main

import (
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const h2loadGood = `starting benchmark...
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Server Temp Key: X25519 253 bits
Application protocol: h2

finished in 1.00s, 13460.00 req/s, 1.37MB/s
requests: 13460 total, 13464 started, 13460 done, 13460 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 13460 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.37MB (1440318) total, 644.08KB (659540) headers (space savings 50.51%), 525.78KB (538400) data
                     min         max         mean         sd        +/- sd
time for request:      141us      1.34ms       290us        46us    91.19%
time for connect:     1.90ms      2.27ms      2.08ms       262us   100.00%
time to 1st byte:     2.85ms      2.87ms      2.86ms        15us   100.00%
req/s           :    6728.06     6729.49     6728.78        1.01   100.00%
`

func TestParseH2load(t *testing.T) {
	overTLS := scenario{wire: wire{tls: true, h2: true}}
	f := func(text, wantTrouble string) {
		t.Helper()
		got, err := parseH2load(overTLS, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got.requests != 13460 || got.elapsed != time.Second || got.mean != 290*time.Microsecond {
			t.Fatalf("got %+v", got)
		}
		trouble := ""
		if err := got.trouble(); err != nil {
			trouble = err.Error()
		}
		if trouble != wantTrouble {
			t.Fatalf("trouble %q, want %q", trouble, wantTrouble)
		}
	}
	f(h2loadGood, "")
	f(strings.NewReplacer("0 failed", "5 failed", "0 4xx, 0 5xx", "2 4xx, 3 5xx").Replace(h2loadGood), "5 of 13460 answers were no success")
	f(strings.NewReplacer("0 failed, 0 errored", "7 failed, 6 errored", "0 5xx", "1 5xx").Replace(h2loadGood),
		"1 of 13460 answers were no success\n6 socket errors or time-outs")
	f(strings.Replace(h2loadGood, "6728.06 ", "0.00 ", 1), "1 socket errors or time-outs") // a connection that failed

	refuse := func(s scenario, text, want string) {
		t.Helper()
		if got, err := parseH2load(s, []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("got %+v, %v, want %q", got, err, want)
		}
	}
	refuse(overTLS, strings.Replace(h2loadGood, "AES_128_GCM_SHA256", "AES_256_GCM_SHA384", 1), "h2load's Cipher")
	refuse(overTLS, strings.Replace(h2loadGood, "TLSv1.3", "TLSv1.2", 1), "h2load's TLS Protocol")
	refuse(overTLS, strings.Replace(h2loadGood, "X25519", "P-256", 1), "h2load's Server Temp Key")
	refuse(overTLS, strings.Replace(h2loadGood, "protocol: h2", "protocol: http/1.1", 1), "h2load's Application protocol")
	refuse(scenario{wire: wire{h2: true}}, h2loadGood, `"h2", want "h2c"`)
	refuse(overTLS, "TLS Protocol: TLSv1.3\n", "h2load's Cipher")
	refuse(overTLS, strings.Replace(h2loadGood, "status codes", "codes", 1), "cannot find the figures")
}

// testServer answers /1k over whatever it is asked to speak, and returns its address.
func testServer(t *testing.T, speaks wire, config *cryptotls.Config) string {
	t.Helper()
	listener, err := net.Listen("tcp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{TLSConfig: config, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/1k" {
				http.NotFound(w, r)
				return
			}
			w.Write(fill(smallBodyBytes)) //nolint:errcheck // the client will notice
		})}
	server.Protocols.SetHTTP1(!speaks.h2)
	server.Protocols.SetHTTP2(speaks.h2 && speaks.tls)
	server.Protocols.SetUnencryptedHTTP2(speaks.h2 && !speaks.tls)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if speaks.tls {
			server.ServeTLS(listener, "", "") //nolint:errcheck // it ends with the test
		} else {
			server.Serve(listener) //nolint:errcheck // it ends with the test
		}
	}()
	t.Cleanup(func() {
		server.Close() //nolint:errcheck // only the test's own
		<-ended
	})
	return listener.Addr().String()
}

// served is the identity and a server's configuration with it.
func served(t *testing.T) (identity, *cryptotls.Config) {
	t.Helper()
	made, err := makeIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := cryptotls.LoadX509KeyPair(made.both, made.both)
	if err != nil {
		t.Fatal(err)
	}
	return made, &cryptotls.Config{Certificates: []cryptotls.Certificate{pair}}
}

// A connection with other work than the rest's is refused before anything is counted.
func TestOtherWorkIsRefused(t *testing.T) {
	made, config := served(t)
	f := func(via wire, leaf []byte, change func(*cryptotls.Config), want string) {
		t.Helper()
		changed := config.Clone()
		change(changed)
		s := scenario{wire: via, method: http.MethodGet, path: "/1k"}
		address := testServer(t, wire{tls: true, h2: via.h2}, changed)
		_, answer, err := client{wire: s.wire, leaf: leaf}.fetch(t.Context(), s.method, address, s.path, nil, 1<<20)
		if want == "" && (err != nil || len(answer) != smallBodyBytes) {
			t.Fatalf("got %d bytes, %v", len(answer), err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Fatalf("got %v, want %q", err, want)
		}
	}
	same := func(*cryptotls.Config) {}
	f(wire{tls: true}, made.leaf, same, "")
	f(wire{tls: true, h2: true}, made.leaf, same, "")
	f(wire{tls: true}, made.leaf[1:], same, "not the bench's one")
	f(wire{tls: true}, made.leaf, func(c *cryptotls.Config) { c.MaxVersion = cryptotls.VersionTLS12 }, "version")
	f(wire{tls: true}, made.leaf, func(c *cryptotls.Config) { c.CurvePreferences = []cryptotls.CurveID{cryptotls.CurveP256} },
		"handshake failure")

	good := cryptotls.ConnectionState{Version: wantedVersion, CipherSuite: cryptotls.TLS_AES_256_GCM_SHA384, HelloRetryRequest: true,
		CurveID: cryptotls.CurveP384}
	err := wire{tls: true, h2: true}.checkNegotiated(good, made.leaf)
	if err == nil {
		t.Fatal("other work was accepted")
	}
	for _, want := range []string{"TLS_AES_256_GCM_SHA384", "round trip", "CurveP384", `protocol ""`, "0 certificates"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %q", want, err)
		}
	}
	if strings.Contains(err.Error(), "version") {
		t.Errorf("the version was right: %q", err)
	}
}

func TestHandshakes(t *testing.T) {
	made, config := served(t)
	run := func(kind handshake, config *cryptotls.Config, path string) (loadResult, error) {
		t.Helper()
		s := scenario{handshake: kind, connections: 4, path: path, reply: reply{bodyBytes: smallBodyBytes}, wire: wire{tls: true}}
		address := testServer(t, s.wire, config)
		var output bytes.Buffer
		args := handshakesArgs(&rig{identity: made}, s, address, 1)
		if err := makeHandshakes(t.Context(), args[1:], nil, &output); err != nil {
			t.Fatal(err)
		}
		return parseHandshakes(s, output.Bytes())
	}
	refuse := func(kind handshake, config *cryptotls.Config, path, want string) {
		t.Helper()
		if got, err := run(kind, config, path); err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("got %+v, %v, want %q", got, err, want)
		}
	}
	for _, kind := range []handshake{handshakeFull, handshakeResumed} {
		got, err := run(kind, config, "/1k")
		if err != nil || got.trouble() != nil || got.requests < 5 || got.elapsed < time.Second || got.p50 == 0 {
			t.Fatalf("kind %d: got %+v, %v", kind, got, err)
		}
	}
	noTickets := config.Clone()
	noTickets.SessionTicketsDisabled = true
	refuse(handshakeResumed, noTickets, "/1k", "wrong work")
	refuse(handshakeFull, config, "/missing", "status line")
	if _, err := parseHandshakes(scenario{handshake: handshakeFull}, []byte(`{"Full":9,"Resumed":1}`)); err == nil {
		t.Fatal("resumed handshakes passed for full ones")
	}
	if _, err := parseHandshakes(scenario{}, []byte("x")); err == nil {
		t.Fatal("nonsense was read")
	}
}

// What idles has spoken its protocol, and does so once more.
func TestHoldConnections(t *testing.T) {
	made, config := served(t)
	f := func(via wire, bodyBytes int, want string) {
		t.Helper()
		args := []string{"-address", testServer(t, via, config), "-path", "/1k", "-count", "40", "-body", strconv.Itoa(bodyBytes),
			"-certificate", made.certificate, "-tls=" + strconv.FormatBool(via.tls), "-h2=" + strconv.FormatBool(via.h2)}
		var output bytes.Buffer
		if err := holdConnections(t.Context(), args, strings.NewReader("go on\n"), &output); err != nil {
			t.Fatal(err)
		}
		if got := output.String(); !strings.HasPrefix(got, want) {
			t.Fatalf("%+v: got %q, want %q", via, got, want)
		}
	}
	for _, via := range []wire{{}, {tls: true}, {h2: true}, {tls: true, h2: true}} {
		f(via, smallBodyBytes, "ready 40\nalive 40\n")
		f(via, smallBodyBytes+1, "ready 0 ")
		f(via, smallBodyBytes-1, "ready 0 ")
	}
}

// The load generators that use OpenSSL do not speak to a proxy that wants another cipher.
func TestOpenSSLIsBound(t *testing.T) {
	for _, tool := range []string{wrkBinary, nginxBinary} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	made, err := makeIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	upstream := testServer(t, wire{}, nil)
	run := func(suite string) (loadResult, error) {
		t.Helper()
		dir := t.TempDir()
		launcher := newLauncher()
		defer launcher.close()
		cpus, err := splitCPUs(-1)
		if err != nil {
			t.Skip(err)
		}
		r := &rig{dir: dir, launcher: launcher, cpus: cpus, identity: made, fileLimit: 1024, upstreams: upstreams{fixed: upstream}}
		s := scenario{wire: wire{tls: true}, connections: 2, method: http.MethodGet, path: "/1k"}
		at, err := r.site(s, dir)
		if err != nil {
			t.Fatal(err)
		}
		at.Connections = 64
		nginx := allPeers("")[1]
		config, err := nginx.writeConfig(at)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(config, bytes.ReplaceAll(text, []byte("TLS_AES_128_GCM_SHA256"), []byte(suite)), 0o644); err != nil {
			t.Fatal(err)
		}
		running, err := launcher.start(program{name: nginx.name, path: nginx.binary, args: nginx.args(dir, config), cpus: cpus.proxy,
			output: filepath.Join(dir, "output.log")})
		if err != nil {
			t.Fatal(err)
		}
		if err := running.awaitReady(t.Context(), at.Listen); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return r.load(ctx, s, at.Listen, 1)
	}
	if got, err := run("TLS_AES_128_GCM_SHA256"); err != nil || got.trouble() != nil {
		t.Fatalf("the wanted cipher: %+v, %v", got, err)
	}
	if got, err := run("TLS_AES_256_GCM_SHA384"); err == nil && got.trouble() == nil {
		t.Fatalf("another cipher was counted: %+v", got)
	}
}

func TestMemoryAgainstPeers(t *testing.T) {
	var idle scenario
	for _, s := range allScenarios() {
		if s.name == "idle-h2" {
			idle = s
		}
	}
	own, other := summarize(samplesOf(29)), summarize(samplesOf(20))
	against := compare(map[string]summary{subject: own, "nginx": other})
	if got := judge(idle, own, against); got != met {
		t.Fatalf("got %q", got)
	}
	own = summarize(samplesOf(31))
	against = compare(map[string]summary{subject: own, "nginx": other})
	if got := judge(idle, own, against); got != missed {
		t.Fatalf("got %q", got)
	}
	r := report{results: []measurement{{scenario: idle, peers: allPeers("sluice")[:2], samples: [][]sample{samplesOf(31), samplesOf(20)}}}}
	text := r.markdown()
	for _, want := range []string{
		"| idle-h2 | 10000 | 31.00 (31.00) | 20.00 (20.00) | 0.0 | 0.0 | 1.55 | 1.55 | <= 1.5 x the better | missed |",
		"TLS 1.3, TLS_AES_128_GCM_SHA256, X25519",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

// Both ends of all connections have room within the bounds that the proxies are given.
func TestConnectionsHaveRoom(t *testing.T) {
	r := rig{}
	for _, s := range allScenarios() {
		at, err := r.site(s, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		atOnce := min(s.connections*max(s.streams, 1), at.UpstreamIdle)
		if s.kind != memoryPerIdle && atOnce+s.connections > at.Connections {
			t.Errorf("%s: %d and %d connections do not fit into %d", s.name, s.connections, atOnce, at.Connections)
		}
		if s.connections+openersAtOnce > at.Connections {
			t.Errorf("%s: %d connections do not fit into %d", s.name, s.connections, at.Connections)
		}
	}
}
