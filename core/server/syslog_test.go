package server

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// The access log of a whole gateway comes to a datagram socket, such as /dev/log is one, as messages of RFC 5424; a receiver
// that is started anew on the same path gets what comes then.
func TestAccessLogReachesADatagramSocket(t *testing.T) {
	folder, err := os.MkdirTemp("", "sluice")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	path := filepath.Join(folder, "log")
	receiver := func() *net.UnixConn {
		t.Helper()
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := receiver()
	defer func() { _ = first.Close() }()
	g := run(t, `
listeners: { http: { bind: "127.0.0.1:0" } }
routes: [{ match: "*", respond: { status: 204 } }]
access_log: "syslog:unix:`+path+`"
`)
	client := http.Client{Transport: &http.Transport{}, Timeout: patience}
	defer client.CloseIdleConnections()
	get := func(path string) {
		t.Helper()
		res, err := client.Get("http://" + g.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
	form := regexp.MustCompile(`^<134>1 \d{4}-\d\d-\d\dT\S+ \S+ sluice \d+ access - (\{.*\})\n?$`)
	// next gives path and status of the next message.
	next := func(c *net.UnixConn, wait time.Duration) (string, error) {
		t.Helper()
		buf := make([]byte, 64<<10)
		_ = c.SetReadDeadline(time.Now().Add(wait))
		n, err := c.Read(buf)
		if err != nil {
			return "", err
		}
		found := form.FindSubmatch(buf[:n])
		if found == nil {
			t.Fatalf("%q is no message of RFC 5424", buf[:n])
		}
		var line struct {
			Path   string
			Status int
		}
		if err := json.Unmarshal(found[1], &line); err != nil {
			t.Fatalf("%v: %q", err, found[1])
		}
		return fmt.Sprint(line.Path, " ", line.Status), nil
	}
	for _, path := range []string{"/a", "/b"} {
		get(path)
		if got, err := next(first, patience); err != nil || got != path+" 204" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	_ = first.Close()
	_ = os.Remove(path)
	second := receiver()
	defer func() { _ = second.Close() }()
	for deadline := time.Now().Add(patience); ; { // what is sent until the end of the first is seen is lost, and counted
		get("/c")
		if got, err := next(second, 50*time.Millisecond); err == nil {
			if got != "/c 204" {
				t.Errorf("got %q", got)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing came to the second receiver\n%s", g.log)
		}
	}
}
