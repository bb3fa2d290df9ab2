package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What a client sends reaches the upstream, and what that answers the client, whole also where one side is slow; an end is passed on.
func TestRelayPassesBytes(t *testing.T) {
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close() //nolint:errcheck // at the end
	go func() {
		for {
			c, err := upstream.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()      //nolint:errcheck // the test sees what is missing
				_, _ = io.Copy(c, c) //nolint:errcheck // same
			}()
		}
	}()
	at, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "addresses")
	if err := os.WriteFile(path, []byte(at+" "+upstream.Addr().String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- relayBytes(ctx, []string{path}, nil, nil) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("relay: %v", err)
		}
	}()
	for _, size := range []int{100, 64 << 10, 1 << 20} {
		c := dialUntil(t, at)
		want, got := fill(size), make([]byte, size)
		go func() { _, _ = c.Write(want) }()
		if size > 64<<10 {
			time.Sleep(50 * time.Millisecond) // a slow reader
		}
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes did not come back whole: %v", size, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// dialUntil connects as soon as somebody listens.
func dialUntil(t *testing.T, at string) net.Conn {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := net.Dial("tcp", at)
		if err == nil {
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// The relay is no proxy: it is not what a figure has to be better than, and is left out where it could not answer.
func TestRelayIsNoRival(t *testing.T) {
	against := compare(map[string]summary{subject: {median: 10, min: 10}, "nginx": {median: 20, min: 20}, childRelay: {median: 5, min: 5}})
	if against.betterMedian != 0.5 || against.ratio(childRelay) != 2 || against.betterMin != 0.5 {
		t.Errorf("compared: %+v", against)
	}
	if all, err := choosePeers("", ""); err != nil || len(all) != len(allPeers("")) {
		t.Errorf("%d peers by default: %v", len(all), err)
	}
	named, err := choosePeers(subject+","+childRelay, "")
	if err != nil || len(named) != 2 {
		t.Fatalf("named: %v, %v", named, err)
	}
	for _, s := range allScenarios() {
		if n := len(s.against(named)); s.wire.tls && n != 1 || s.name == "h1-64" && n != 2 {
			t.Errorf("%s has %d peers", s.name, n)
		}
	}
}
