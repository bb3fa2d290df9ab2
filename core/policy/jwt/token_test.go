package jwt

import (
	"encoding/base64"
	"strings"
	"testing"
)

func part(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func TestRead(t *testing.T) {
	f := func(what, head, claims, signature string, want bool) {
		t.Helper()
		if _, ok := new(reader).read(head + "." + claims + "." + signature); ok != want {
			t.Errorf("%s: %v", what, ok)
		}
	}
	head, claims, sig := part(`{"alg":"RS256","kid":"a","typ":"JWT"}`), part(`{"sub":"x","n":[1,{"a":null}]}`), part("0123456789")
	f("right", head, claims, sig, true)
	f("keys of its own are not looked at", part(`{"alg":"RS256","jwk":{"kty":"RSA"},"jku":"https://evil","x5u":"x","x5c":["x"]}`), claims, sig, true)
	for what, h := range map[string]string{
		"no alg": `{"typ":"JWT"}`, "alg a number": `{"alg":1}`, "alg twice": `{"alg":"RS256","alg":"none"}`, "alg twice, escaped": `{"alg":"RS256","\u0061lg":"none"}`,
		"critical": `{"alg":"RS256","crit":["exp"],"exp":1}`, "critical, empty": `{"alg":"RS256","crit":[]}`, "b64": `{"alg":"RS256","b64":false}`,
		"b64 true": `{"alg":"RS256","b64":true}`, "kid a list": `{"alg":"RS256","kid":["a"]}`, "kid empty": `{"alg":"RS256","kid":""}`,
		"kid null": `{"alg":"RS256","kid":null}`, "kid long": `{"alg":"RS256","kid":"` + strings.Repeat("k", 300) + `"}`, "trailing": `{"alg":"RS256"} {}`,
		"trailing text": `{"alg":"RS256"}x`, "a list": `["alg"]`, "empty": ``, "null": `null`, "comma": `{"alg":"RS256",}`, "not UTF-8": "{\"alg\":\"RS256\",\"x\":\"\xff\"}",
	} {
		f(what, part(h), claims, sig, false)
	}
	for what, c := range map[string]string{
		"twice": `{"sub":"a","sub":"b"}`, "twice, deep": `{"a":{"b":1,"b":2}}`, "twice in a list": `{"a":[{"b":1,"b":2}]}`, "deep": strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40),
		"a list": `[]`, "a string": `"x"`,
	} {
		f("claims "+what, head, part(c), sig, false)
	}
	f("padding", head+"=", claims, sig, false)
	f("not canonical", head, claims, sig[:len(sig)-1]+"h", false) // its last bits are of no byte
	f("a line end", head, claims[:4]+"\n"+claims[4:], sig, false)
	f("standard alphabet", head, claims, "+/+/", false)
	f("four parts", head, claims, sig+"."+sig, false)
	f("no signature", head, claims, "", false)
	f("huge", head, part(`{"a":"`+strings.Repeat("x", maxTokenBytes)+`"}`), sig, false)
	if _, ok := new(reader).read("x"); ok {
		t.Error("one part")
	}
}

func FuzzRead(f *testing.F) {
	f.Add(part(`{"alg":"RS256","kid":"a"}`) + "." + part(`{"sub":"x","n":[1,{"a":null}]}`) + "." + part("sig"))
	f.Add("..")
	f.Add(part(`{"alg":"none"}`) + "." + part(`{}`) + ".")
	f.Fuzz(func(t *testing.T, s string) {
		tok, ok := new(reader).read(s)
		if !ok {
			return
		}
		// What was read is all there is: the same bytes give the same text again.
		if !strings.HasPrefix(s, tok.signed+".") || s != tok.signed+"."+base64.RawURLEncoding.EncodeToString(tok.signature) {
			t.Errorf("%q is not canonical", s)
		}
		if tok.claims == nil || tok.alg == "" && !strings.Contains(s, ".") {
			t.Errorf("%q: %+v", s, tok)
		}
	})
}
