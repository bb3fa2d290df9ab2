package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testUpgradeNetworks has a file of networks followed by the process before an upgrade and by the one after; one that is wrong by then
// refuses the upgrade, with its place, and what was read well before stays in force.
func testUpgradeNetworks(t *testing.T, binaries [2]string) {
	s := newSite(t, binaries, "1s")
	good, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(s.folder, "list")
	s.put("list", "192.0.2.0/24\n", 0o600)
	s.put("sluice.yaml", strings.Replace(string(good), "routes: [", "routes: [{ match: /listed, use: [{ ip: { deny: \"file:"+list+"\" } }], respond: {} }, ", 1), 0o600)
	if err := s.admin.Reload(true); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	denied := func() bool {
		t.Helper()
		res, err := client.Get("http://" + s.addr("http") + "/listed")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusForbidden
	}
	if denied() {
		t.Error("the client is in no list yet")
	}
	s.put("list", "127.0.0.0/8\n", 0o600)
	s.eventually("the process before follows the file", denied)

	s.put("list", "127.0.0.0/33\n", 0o600)
	if told, err := s.upgrade("--wait"); err == nil || !strings.Contains(told, list+":1:1: ") {
		t.Errorf("an upgrade with a wrong file: %q, %v", told, err)
	}
	if !denied() {
		t.Error("what was read before is lost")
	}

	s.put("list", "192.0.2.0/24\n", 0o600)
	s.point(1)
	s.upgraded("command")
	if denied() {
		t.Error("the process after has not read the file")
	}
	s.put("list", "127.0.0.0/8\n", 0o600)
	s.eventually("the process after follows the file", denied)
}
