package server

import (
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// newSecureGate is newGate with TLS: h2Config for HTTP/2 and HTTP/1.1, with a's certificate for a.test and localhost.
func newSecureGate(t *testing.T, a *authority, upstream string) *gate {
	t.Helper()
	folder := t.TempDir()
	cert, key := a.issue(false, "a.test", "localhost")
	a.put(folder, "a", cert, key)
	tls := "[h1, h2]\n    tls: { certificates: [{ cert: " + folder + "/a.pem, key: " + folder + "/a.key }] }"
	return newGate(t, h2Config(upstream, tls))
}

// TestH2spec runs the conformance tests of h2spec, the strict ones too, through the gateway to an upstream. It writes what each
// of them found to standard output.
func TestH2spec(t *testing.T) {
	u := newManyUpstream(t)
	t.Run("without TLS", func(t *testing.T) { testH2spec(t, newGate(t, h2Config(u.addr, "[h2c]")), false) })
	t.Run("with TLS", func(t *testing.T) { testH2spec(t, newSecureGate(t, newAuthority(t), u.addr), true) })
}

func testH2spec(t *testing.T, g *gate, tls bool) {
	_, port, err := net.SplitHostPort(g.addr)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	c := &config.Config{Host: "127.0.0.1", Port: number, Path: "/whole", Timeout: 2 * time.Second, MaxHeaderLen: 4000, Strict: true, TLS: tls, Insecure: tls}
	if tls {
		c.Host = "localhost" // the connection is for the names of its certificate only
	}
	passed := 0
	for _, s := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		s.Test(c)
		passed += s.PassedCount
		for _, group := range failedGroups(s) {
			for _, test := range group.Tests {
				if r := test.Result; r != nil && r.Failed {
					t.Errorf("%s: %s: %v", group.ID(), test.Desc, r.Error)
				}
			}
		}
		if s.FailedCount > 0 {
			t.Errorf("%s: %d failed", s.Name, s.FailedCount)
		}
	}
	if passed < 145 {
		t.Errorf("only %d tests passed", passed)
	}
}

func failedGroups(g *spec.TestGroup) (failed []*spec.TestGroup) {
	if g.FailedCount > 0 {
		failed = append(failed, g)
	}
	for _, below := range g.Groups {
		failed = append(failed, failedGroups(below)...)
	}
	return failed
}
