package compile

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNetworksWatch: a file of networks is read when it is at rest; what is wrong with it, or that it is away, is told and counted once, and
// leaves what there was.
func TestNetworksWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "networks")
	f := newNetworksFile(&followed{followedKey: followedKey{"networks", path}})
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	look := func(what, addr, logged string, failures uint64) {
		t.Helper()
		text.Reset()
		for range 3 { // what is seen changed is read at the next look, and then nothing is new
			f.look(log)
		}
		if !f.networks.Contains(netip.MustParseAddr(addr)) {
			t.Errorf("%s: %s is not in force", what, addr)
		}
		if got := text.String(); !strings.Contains(got, logged) || strings.Count(got, "\n") > 1 || logged == "" && got != "" {
			t.Errorf("%s: log %q, want %q", what, got, logged)
		}
		if f.failures != failures {
			t.Errorf("%s: %d failures, want %d", what, f.failures, failures)
		}
	}
	putFile(t, path, []byte("10.0.0.0/8\n"))
	if f.look(log); f.networks.Contains(netip.MustParseAddr("10.0.0.1")) {
		t.Error("a file is read that may be being written")
	}
	look("at first", "10.0.0.1", "read again", 0)
	look("unchanged", "10.0.0.1", "", 0)
	putFile(t, path, []byte("10.0.0.0/8\nx\n"))
	look("wrong", "10.0.0.1", "networks:2:1: ", 1)
	look("wrong still", "10.0.0.1", "", 1)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	look("away", "10.0.0.1", "no such file", 2)
	look("away still", "10.0.0.1", "", 2)
	putFile(t, path, []byte("10.0.0.0/8\n"))
	look("as it was", "10.0.0.1", "right again", 2)
	putFile(t, path, []byte("192.0.2.0/24\n"))
	look("another", "192.0.2.1", "read again", 2)
	if f.networks.Contains(netip.MustParseAddr("10.0.0.1")) {
		t.Error("the list before is still in force")
	}
}
