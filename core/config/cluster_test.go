package config

import (
	"strings"
	"testing"
)

// TestClusterWhole refuses what cannot be one place, and takes every form that is.
func TestClusterWhole(t *testing.T) {
	f := func(cluster, want string) {
		t.Helper()
		_, problems := Parse("sluice.yaml", []byte("cluster: "+cluster+"\nlisteners: { a: { bind: \":1\" } }\n"+
			"routes: [{ match: /, use: [{ rate_limit: { limit: 1/s, mode: lease } }], respond: {} }]\n"),
			filesEnv(map[string]string{"env": "WORD=s3cret\nLONG=0123456789abcdef0123456789abcdef\n"}))
		if got := problems.String(); want == "" && problems.Refused() || !strings.Contains(got, want) {
			t.Errorf("%s: want %q in\n%s", cluster, want, got)
		}
	}
	f(`{ redis: "10.0.0.1:6379" }`, `"cluster" has no "secret": clients could foresee the keys of limits`)
	f(`{ redis: "10.0.0.1:6379", secret: "env:LONG" }`, "")
	f(`{ redis: { addresses: "unix:/run/redis.sock", password: "env:WORD", username: sluice, database: 1, timeout: 1s } }`, "")
	f(`{ redis: { addresses: ["a:1", "b:1"], mode: cluster, password: "env:WORD", tls: true } }`, "")
	f(`{ redis: { addresses: ["a:1", "b:1"], sentinel: { master: m, username: s, password: "env:WORD" } }, secret: "env:LONG" }`, "")
	f(`{}`, `"cluster" has no "redis"`)
	f(`{ secret: "env:WORD", redis: "a:1" }`, `"secret" must have from 32 to 1024 bytes`)
	f(`{ secret: 0123456789abcdef0123456789abcdef, redis: "a:1" }`, `"secret" is given by reference only`)
	f(`{ redis: ["a:1", "b:1"] }`, "several addresses are of a cluster or of sentinels")
	f(`{ redis: { addresses: ["a:1", "b:1"] } }`, "a single Redis has one address")
	f(`{ redis: { timeout: 10ms } }`, `"redis" has no "addresses"`)
	f(`{ redis: { addresses: "a:1", sentinel: {} } }`, `"sentinel" does not say which master is watched`)
	f(`{ redis: { addresses: "a:1", mode: sentinel } }`, `mode sentinel has no "sentinel"`)
	f(`{ redis: { addresses: "a:1", mode: cluster, sentinel: { master: m } } }`, `"sentinel" has no meaning in mode cluster`)
	f(`{ redis: { addresses: "a:1", mode: cluster, database: 1 } }`, "a cluster has no database but 0")
	f(`{ redis: { addresses: "unix:/a", mode: cluster } }`, "cluster has no sockets of this host")
	f(`{ redis: { addresses: "unix:/a", tls: true } }`, "a socket of this host is not encrypted")
	f(`{ redis: { addresses: "a:1", username: u } }`, `"username" has no "password"`)
	f(`{ redis: { addresses: "a:1", timeout: 2s, database: -1, mode: pair } }`, `"timeout" must be from 1ms to 1s`)
}
