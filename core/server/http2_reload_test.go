package server

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-gateway/sluice/core/vacant"
)

// TestMuxConnectFails has one of two endpoints refuse connections: all who wait for the same one try the other.
func TestMuxConnectFails(t *testing.T) {
	dead := vacant.Address(t)
	u := newScriptedUpstream(t, (*scriptedConn).serve)
	g := newMuxGate(t, `"`+dead+`", "`+u.addr+`"`, "")
	client := newH2Client(t)
	for range 3 {
		g.wants(50, client, "POST", "/", "a body", okSmall)
	}
	if n := u.accepted.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	g = newMuxGate(t, dead, "")
	g.wants(50, client, "GET", "/", "", "502 connect_failed")
}

// TestMuxALPN speaks HTTP/2 to an encrypted upstream that agrees to it, and does not try to with another.
func TestMuxALPN(t *testing.T) {
	a := newAuthority(t)
	folder := t.TempDir()
	a.put(folder, "ca", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), nil)
	for _, h2 := range []bool{true, false} {
		u := startSecureUpstream(t, a, h2, "up.test")
		g := newGate(t, strings.NewReplacer("protocol: h2c", "protocol: h2, tls: { ca: "+folder+"/ca.pem, server_name: up.test }").
			Replace(muxConfig(`"`+strings.TrimPrefix(u.URL, "https://")+`"`, "")))
		client := h1Client(t)
		if h2 {
			g.wants(20, client, "POST", "/", "a body", "200 a body")
			if n := u.connections(); n != 1 {
				t.Errorf("%d connections", n)
			}
		} else {
			g.wants(20, client, "POST", "/", "a body", "502 tls_failed")
			if n := u.connections(); n != 0 {
				t.Error("the upstream was asked")
			}
		}
		g.settled()
	}
}

// TestMuxReload changes the protocol that an upstream is spoken to with, and takes endpoints away, under load: no request fails, and
// those connections end that are of no use any more.
func TestMuxReload(t *testing.T) {
	a, b := newManyUpstream(t), newManyUpstream(t)
	config := func(protocol string, endpoints ...string) string {
		return strings.Replace(muxConfig(`"`+strings.Join(endpoints, `", "`)+`"`, ""), "h2c }", protocol+" }", 1)
	}
	configs := []string{config("h2c", a.addr, b.addr), config("h1", a.addr, b.addr), config("h2c", b.addr), config("h1", a.addr), config("h2c", a.addr)}
	g := run(t, configs[0])
	var end atomic.Bool
	var made atomic.Int64
	var work sync.WaitGroup
	seen := [2]atomic.Int64{}
	for i := range 8 {
		client := []func(testing.TB) *http.Client{h1Client, newH2Client}[i%2](t)
		work.Go(func() {
			for n := 0; !end.Load(); n++ {
				size := int64(n * 7919 % 200_000)
				method, path, send := "GET", "/small", io.Reader(nil)
				if n%2 == 1 {
					method, path, send = "POST", fmt.Sprint("/upload?", size), reader{&pattern{size: size}}
				}
				res, body, err := exchange(client, method, "http://"+g.addr+path, send)
				if err != nil || res.StatusCode != 200 {
					t.Errorf("%s: %q, %v", path, body, err)
					return
				}
				switch res.Header.Get("X-Proto") {
				case "HTTP/1.1":
					seen[0].Add(1)
				case "HTTP/2.0":
					seen[1].Add(1)
				}
				made.Add(1)
			}
		})
	}
	for n := 1; n <= 3*len(configs); n++ {
		before := made.Load()
		g.write(configs[n%len(configs)])
		if err := g.admin.Reload(true); err != nil {
			t.Error(err)
		}
		eventually(t, "requests go on", func() bool { return made.Load() > before+20 || t.Failed() })
	}
	end.Store(true)
	work.Wait()
	if seen[0].Load() == 0 || seen[1].Load() == 0 {
		t.Errorf("%d requests in HTTP/1.1 and %d in HTTP/2", seen[0].Load(), seen[1].Load())
	}
	g.write(configs[4])
	if err := g.admin.Reload(true); err != nil {
		t.Error(err)
	}
	eventually(t, "the endpoint that is gone has no connections", func() bool { return b.open.Load() == 0 })
}
