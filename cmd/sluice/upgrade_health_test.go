package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/admin"
)

// upstreamOf is the name of the only upstream.
func upstreamOf(t *testing.T, s *site) string {
	t.Helper()
	all, err := s.admin.Upstreams()
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	return all[0].Name
}

// testUpgradeKeepsHealth has a process take over that would find out in an hour which endpoint is down: it knows from the start. Nor does
// it forget that somebody has drained it.
func testUpgradeKeepsHealth(t *testing.T, binaries [2]string) {
	s := layOut(t, binaries, "2s")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := ln.Addr().String()
	_ = ln.Close()
	plain, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	checked := func(times string) {
		s.put("sluice.yaml", strings.Replace(string(plain), `"], pool:`, fmt.Sprintf(`", %q], health: { tcp: {}, unhealthy: 2, %s }, pool:`, down, times), 1), 0o600)
	}
	checked("start_interval: 50ms, interval: 1h")
	s.start(exec.Command(s.link, "run", "-c", s.config))
	health := func() admin.HealthStatus {
		all, err := s.admin.Upstreams()
		if err != nil || len(all) != 1 || len(all[0].Endpoints) != 2 || all[0].Endpoints[1].Health == nil {
			t.Fatalf("%+v, %v\n%s", all, err, s.log())
		}
		return *all[0].Endpoints[1].Health
	}
	s.eventually("the endpoint is out", func() bool { return health().State == "unhealthy" })
	before := health()
	if _, err := s.admin.SetEndpoints(admin.SetEndpoints{Upstream: upstreamOf(t, s), Change: "drain", Endpoints: []string{down}}); err != nil {
		t.Fatal(err)
	}
	checked("start_interval: 1h, interval: 1h")
	s.point(1)
	s.upgraded("command")
	if h := health(); h.State != "unhealthy" || !h.Settled || !h.Asked.IsZero() || h.Since.Sub(before.Since).Abs() > time.Second {
		t.Errorf("%+v, was %+v\n%s", h, before, s.log())
	}
	if all, err := s.admin.Upstreams(); err != nil || !slices.Equal(all[0].Endpoints[1].Overrides, []string{"draining"}) {
		t.Errorf("it is not drained any more: %+v, %v", all, err)
	}
	for range 20 {
		answer, err := http.Get("http://" + s.addr("http") + "/")
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("status %d", answer.StatusCode)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
