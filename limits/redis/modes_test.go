package redis

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/limits"
)

// takesBoth takes of two buckets at once, and of one of many keys.
func takesBoth(t *testing.T, c *Client) {
	t.Helper()
	a, b := buckets(t, c, "a", hourly(1000, limits.TokenBucket)), buckets(t, c, "b", hourly(1000, limits.SlidingWindow))
	alone, err := c.Buckets(BucketSpec{Policy: "alone", Name: "x", Windows: []limits.Window{hourly(1, limits.FixedWindow)}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(50) {
		if d, err := c.Take([]*Buckets{a, b}, []limits.Ask{{Cost: 1}, {Key: limits.Key{Lo: i}, Cost: 1}}); err != nil || !d.Allowed || d.Remaining != uint32(999-i) {
			t.Fatalf("%d: %s", i, text(d, err))
		}
		for _, want := range []bool{true, false} {
			if d, err := c.Take([]*Buckets{alone}, []limits.Ask{{Key: limits.Key{Hi: i * 7919}, Cost: 1}}); err != nil || d.Allowed != want {
				t.Fatalf("%d: %s, want %t", i, text(d, err), want)
			}
		}
	}
}

// TestSocketAndPassword speaks over a socket of this host, with a password and another database; a wrong password leaves Redis away.
func TestSocketAndPassword(t *testing.T) {
	s := newServer(t, "--requirepass", "s3cret")
	socket := ""
	for i, arg := range s.args {
		if arg == "--unixsocket" {
			socket = s.args[i+1]
		}
	}
	takesBoth(t, s.client(func(x *Spec) {
		x.Addresses, x.Password, x.Database, x.Timeout = []string{"unix:" + socket}, "s3cret", 3, time.Second
	}))
	c, err := New(Spec{Addresses: []string{s.addr}, Mode: Single, Password: "wrong", Timeout: time.Second, Clock: wall, Log: newLog()})
	if err != nil {
		t.Fatal(err)
	}
	c.Start()
	defer c.Close()
	await(t, func() bool { return c.Status().Problem != "" }, "a wrong password is no problem")
	if !c.Away() {
		t.Error("with a wrong password Redis is there")
	}
}
