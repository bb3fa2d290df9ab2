package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestDumpRoundTrip reads testdata/full.yaml, which holds every key of the grammar, and what is dumped of it in clear.
func TestDumpRoundTrip(t *testing.T) {
	text, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	cfg := mustParse(t, string(text))
	dump := cfg.dump(true)
	shown := regexp.MustCompile(`((?:rotate: 12h\n +|auth: post\n +|id: "?key-1"?, )secret: |secret_id: )"\*\*\*"`) // what is given by reference only
	keys := regexp.MustCompile(`key: \[.*\]`).ReplaceAllStringFunc(string(dump), func(s string) string { return strings.ReplaceAll(s, `"***"`, "env:LONGER") })
	again := mustParse(t, shown.ReplaceAllString(keys, "${1}env:LONGER"))
	if second := again.dump(true); !bytes.Equal(dump, second) {
		t.Errorf("got\n%s\nand then\n%s", dump, second)
	}
	hide := func(c *Config) *Config {
		for i := range c.Routes {
			if a := c.Routes[i].Respond; a != nil {
				a.Body = Literal(a.Body.String())
				for j := range a.Headers {
					a.Headers[j].Value = Literal(a.Headers[j].Value.String())
				}
			}
		}
		return bare(c)
	}
	if a, b := hide(cfg), hide(again); !reflect.DeepEqual(a, b) {
		t.Errorf("got\n%#v\nwant\n%#v", b, a)
	}
	for key := range strings.FieldsSeq(strings.Join([]string{documentKeys, listenerKeys, tlsKeys, acmeKeys, upstreamKeys, routeKeys, outlierKeys, breakerKeys, adaptiveKeys,
		tuningKeys, listenerSocketKeys, forwardAuthKeys, introspectKeys, hmacKeys, extAuthzKeys, secretsKeys, jwtKeys, oidcKeys, sessionKeys, credentialsKeys, identityTokenKeys}, " ")) {
		if key != "include" && !strings.Contains(string(text), key+":") {
			t.Errorf("testdata/full.yaml lacks %s", key)
		}
		if key != "include" && !strings.Contains(string(dump), key+":") {
			t.Errorf("the dump lacks %s", key)
		}
	}
}

// TestKeysAreKnown holds the lists of keys, which serve as hints, against what is read.
func TestKeysAreKnown(t *testing.T) {
	f := func(keys, format string) {
		t.Helper()
		for key := range strings.FieldsSeq(keys) {
			_, problems := Parse("sluice.yaml", fmt.Appendf(nil, format, key), Env{})
			if strings.Contains(problems.String(), "unknown key") {
				t.Errorf("%s is not known: %s", key, problems)
			}
		}
	}
	f(documentKeys, "%s: x\n")
	f(secretsKeys, "secrets: { %s: ~ }\n")
	f(vaultKeys, "secrets: { vault: { %s: ~ } }\n")
	f(listenerKeys, "listeners: { a: { %s: ~ } }\n")
	f(tlsKeys, "listeners: { a: { tls: { %s: ~ } } }\n")
	f(acmeKeys, "listeners: { a: { tls: { acme: { %s: ~ } } } }\n")
	f(upstreamKeys, "upstreams: { a: { %s: ~ } }\n")
	f(credentialsKeys, "upstreams: { a: { authorize: { client_credentials: { %s: ~ } } } }\n")
	f(tuningKeys, "tuning: { %s: ~ }\n")
	f(listenerSocketKeys, "listeners: { a: { socket: { %s: ~ } } }\n")
	f(upstreamSocketKeys, "upstreams: { a: { socket: { %s: ~ } } }\n")
	f(hmacKeys, "policies: { a: { hmac: { %s: ~ } } }\n")
	f(consumerKeys, "consumers: { a: { %s: ~ } }\n")
	f(introspectKeys, "policies: { a: { introspect: { %s: ~ } } }\n")
	f(extAuthzKeys, "policies: { a: { ext_authz: { %s: ~ } } }\n")
	f(oidcKeys, "policies: { a: { oidc: { %s: ~ } } }\n")
	f(sessionKeys, "policies: { a: { oidc: { sessions: { %s: ~ } } } }\n")
	f(forwardAuthKeys, "policies: { a: { forward: { %s: ~ } } }\n")
	f(routeKeys, "routes: [{ %s: ~ }]\n")
	f(outlierKeys, "upstreams: { a: { outlier: { %s: ~ } } }\n")
	f(breakerKeys, "upstreams: { a: { breaker: { %s: ~ } } }\n")
	f(adaptiveKeys, "upstreams: { a: { concurrency: { %s: ~ } } }\n")
	f(matchKeys, "routes: [{ match: { %s: ~ } }]\n")
}

func TestSecretsStayHidden(t *testing.T) {
	cfg := mustParse(t, "listeners: { a: { bind: \":80\" } }\nroutes:\n"+
		"- { match: /, respond: { body: \"env:WORD\", headers: { X-A: \"file:/word\", X-B: plain } } }\n")
	a := cfg.Routes[0].Respond
	if a.Body.Reveal() != "s3cret" || a.Headers[0].Value.Reveal() != "s3cret" || a.Headers[1].Value.String() != "plain" {
		t.Errorf("got %q, %q and %q", a.Body.Reveal(), a.Headers[0].Value.Reveal(), a.Headers[1].Value)
	}
	encoded, err := json.Marshal(cfg.Routes[0])
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "body", a.Body, "all", a)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "body", a.Body, "all", a)
	for _, shown := range []string{
		string(cfg.Dump()), string(encoded), log.String(), a.Body.String(), fmt.Sprint(*a, cfg.Routes[0]),
		fmt.Sprintf("%v %+v %#v %s %q %x", a.Body, *a, *a, a.Body, a.Body, a.Body), fmt.Sprintf(strings.ToLower("%D"), a.Body),
	} {
		if strings.Contains(shown, "s3cret") || !strings.Contains(shown, "***") {
			t.Errorf("got %s", shown)
		}
	}
}

// TestCredentialsStayHidden: what stands in the file as it is does not leave the process either, where it is or may be a credential.
func TestCredentialsStayHidden(t *testing.T) {
	const word = "c2VjcmV0LWluLXRoZS1maWxlLWFzLWl0LWlz"
	const service = "listeners: { a: { bind: \":80\" } }\npolicies: { p: { %s } }\nroutes: [{ match: /, use: [p], respond: {} }]\n"
	const checked = "listeners: { a: { bind: \":80\" } }\nupstreams: { u: { endpoints: [\"a:80\"], health: %s } }\nroutes: [{ match: /, to: u }]\n"
	f := func(text string, shown ...string) {
		t.Helper()
		text = strings.ReplaceAll(text, "WORD", word)
		cfg := mustParse(t, text)
		dump := string(cfg.Dump())
		if strings.Contains(dump, word) || strings.Count(dump, redacted) != strings.Count(text, word) {
			t.Errorf("%s: the dump shows\n%s", text, dump)
		}
		if again := cfg.dump(true); strings.Count(string(again), word) != strings.Count(text, word) || !bytes.Equal(again, mustParse(t, string(again)).dump(true)) {
			t.Errorf("%s: in clear\n%s", text, again)
		}
		for _, s := range shown {
			if !strings.Contains(dump, s) {
				t.Errorf("%s: the dump lacks %s:\n%s", text, s, dump)
			}
		}
	}
	f("listeners: { a: { bind: \":443\", tls: { tickets: { secret: WORD }, acme: { directory: https://ca.example/d, email: a@b.example, agree: true, names: [a.example], "+
		"external_account: { kid: shown, hmac: WORD } } } } }\nroutes: [{ match: /, respond: {} }]\n", "kid: shown")
	f(fmt.Sprintf(service, `headers: { request: { set: { Authorization: "Bearer WORD", X-Plain: shown }, add: { X-Api-Key: WORD }, default: { Cookie: "a=WORD{method}" } }, `+
		`response: { set: { X-Secret: WORD } } }`), "X-Plain: shown")
	f(fmt.Sprintf(service, `forward: { url: "https://a/b?api_key=WORD&user=shown&access_token=WORD" }`), "user=shown")
	f(fmt.Sprintf(service, `ext_authz: { url: "grpcs://a:1", context: { token: WORD, rules: shown } }`), "rules: shown")
	f(fmt.Sprintf(service, `jwt: { audience: a, jwks: "https://a/keys?secret=WORD" }`), "https://a/keys")
	f(fmt.Sprintf(checked, `{ http: { path: "/live?token=WORD", headers: { Authorization: WORD, Accept: shown } } }`), "Accept: [shown]")
	f(fmt.Sprintf(checked, `{ tcp: { send: "AUTH WORD" } }`))
	f("listeners: { a: { bind: \":80\" } }\nroutes: [{ match: { host: a.example, headers: { X-Api-Key: WORD, Authorization: ~WORD, X-Plain: shown, Cookie: true }, query: { token: WORD }, "+
		"cookies: { secret: WORD } }, respond: {} }]\n", "x-plain: shown", "cookie: true")
	all := fmt.Sprintf("%+v", mustParse(t, strings.ReplaceAll(fmt.Sprintf(service, `headers: { request: { set: { Authorization: WORD } } }`), "WORD", word)).Policies[0].Headers)
	if strings.Contains(all, word) || !strings.Contains(all, redacted) {
		t.Errorf("got %s", all)
	}
}

func TestUnits(t *testing.T) {
	for _, text := range []string{"0", "1ms", "10s", "1m30s", "1h", "24h", "90m", "1.5s", "2h45m", "10us"} {
		d, hint, ok := parseDuration(text)
		again, _, _ := parseDuration(formatDuration(d))
		if !ok || d != again {
			t.Errorf("%s: %s, %s, %s", text, d, formatDuration(d), hint)
		}
	}
	for _, text := range []string{"0", "1B", "1KiB", "1kB", "1500B", "10MB", "3MiB", "2GiB", "1GB"} {
		n, hint, ok := parseSize(text)
		again, _, _ := parseSize(formatSize(n))
		if !ok || n != again {
			t.Errorf("%s: %d, %s, %s", text, n, formatSize(n), hint)
		}
	}
	for _, text := range []string{"", "s", "1", "-1s", "+1s", "1 s", "1e3s", "1d", "0s0", ".", "1KiB", "1µs", "99999999999h"} {
		if d, _, ok := parseDuration(text); ok {
			t.Errorf("%q is taken for %s", text, d)
		}
	}
	for _, text := range []string{"", "B", "1", "-1B", "1 B", "1.5MiB", "1kib", "0x1B", "1s"} {
		if n, _, ok := parseSize(text); ok {
			t.Errorf("%q is taken for %d", text, n)
		}
	}
}

func TestEditDistance(t *testing.T) {
	f := func(a, b string, want int) {
		t.Helper()
		if got := editDistance(a, b); got != want {
			t.Errorf("%q to %q: got %d, want %d", a, b, got, want)
		}
		if got := editDistance(b, a); got != want {
			t.Errorf("%q to %q: got %d, want %d", b, a, got, want)
		}
	}
	f("", "", 0)
	f("", "abc", 3)
	f("endpoint", "endpoints", 1)
	f("endpionts", "endpoints", 1)
	f("kitten", "sitting", 3)
	f("listners", "listeners", 1)
}
