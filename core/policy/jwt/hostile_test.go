package jwt

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// hostile is a policy that knows one secret, under a name that is not ASCII.
func hostile(t *testing.T) (judge func(text string) string, sign func(head, claims string) string) {
	t.Helper()
	secret := []byte("a secret of at least thirty-two bytes")
	set, err := Secret(secret)
	if err != nil {
		t.Fatal(err)
	}
	set.keys[0].id = "ключ-é"
	d, err := core.NewDirectory(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := New(Spec{Bearer: core.Bearer{ClaimRules: core.ClaimRules{Audiences: []string{"api"}, Headers: []core.ClaimHeader{{Header: "X-Note", Claim: "note"}}}}},
		Fixed{set}, core.NewConsumers(d), 1)
	judge = func(text string) string {
		g, _, err := p.verify(text, set, d, time.Unix(1_900_000_000, 0))
		switch {
		case err != nil:
			return err.Reason
		case g == nil:
			t.Errorf("%q: neither a grant nor an error", text)
		}
		return ""
	}
	return judge, func(head, claims string) string {
		text := part(head) + "." + part(claims)
		m := hmac.New(sha256.New, secret)
		m.Write([]byte(text))
		return text + "." + b64(m.Sum(nil))
	}
}

const (
	hostileHead   = `{"alg":"HS256","kid":"ключ-é"}`
	hostileClaims = `{"aud":"api","sub":"user","exp":4000000000}`
)

// TestTruncated: no beginning of a right token is one, nor any end, nor one with a byte less, more, or another.
func TestTruncated(t *testing.T) {
	judge, sign := hostile(t)
	right := sign(hostileHead, hostileClaims)
	if reason := judge(right); reason != "" {
		t.Fatal(reason)
	}
	for n := range len(right) {
		for what, text := range map[string]string{"up to": right[:n], "from": right[n+1:], "without": right[:n] + right[n+1:], "another than": right[:n] + other(right[n]) + right[n+1:],
			"one before": right[:n] + "A" + right[n:]} {
			switch reason := judge(text); reason {
			case "token_malformed", "token_signature", "token_algorithm", "token_key_unknown":
			default:
				t.Errorf("%s byte %d: %q", what, n, reason)
			}
		}
	}
}

func other(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

// TestTextOfTokens: what is no text in UTF-8 spoils a token, wherever it stands and however it is written; what is text but no word is no name of
// a key or a consumer, and no value of a field. Names are compared as they stand: nothing is normalised.
func TestTextOfTokens(t *testing.T) {
	judge, sign := hostile(t)
	f := func(what, head, claims, want string) {
		t.Helper()
		if got := judge(sign(head, claims)); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	for what, text := range map[string]string{
		"a byte that begins nothing": "\xff", "a byte that goes on with nothing": "\x80", "a sequence that breaks off": "\xe2\x82", "an overlong NUL": "\xc0\x80",
		"an overlong slash": "\xe0\x80\xaf", "a surrogate": "\xed\xa0\x80", "a pair of surrogates": "\xed\xa0\xbd\xed\xb8\x80", "past the last": "\xf4\x90\x80\x80",
		"a high half": `\ud83d`, "a low half": `\ude00`, "halves the wrong way round": `\ude00\ud83d`, "a half before text": `\ud83dx`,
		"NUL": "\x00", "a line end": "\n", "an escape that is none": `\x41`, "half an escape": `\u00`,
	} {
		f(what+" in kid", `{"alg":"HS256","kid":"ключ-é`+text+`"}`, hostileClaims, "token_malformed")
		f(what+" in a field that nobody reads", `{"alg":"HS256","x":"`+text+`"}`, hostileClaims, "token_malformed")
		f(what+" as a name of the head", `{"alg":"HS256","`+text+`":1}`, hostileClaims, "token_malformed")
		f(what+" in sub", hostileHead, `{"aud":"api","sub":"user`+text+`","exp":4000000000}`, "token_malformed")
		f(what+" as a claim's name", hostileHead, `{"aud":"api","`+text+`":1,"exp":4000000000}`, "token_malformed")
		f(what+" deep in a claim", hostileHead, `{"aud":"api","x":[{"y":"`+text+`"}],"exp":4000000000}`, "token_malformed")
	}
	for what, c := range map[string]struct{ kid, want string }{
		"as it is": {`ключ-é`, ""}, "escaped": {`\u043a\u043b\u044e\u0447-\u00e9`, ""}, "decomposed": {`ключ-e\u0301`, "token_key_unknown"},
		"in capitals": {`КЛЮЧ-É`, "token_key_unknown"}, "NUL behind it": {`ключ-é\u0000`, "token_key_unknown"}, "NUL": {`\u0000`, "token_key_unknown"},
		"a path": {`../../ключ-é`, "token_key_unknown"}, "a BOM": {`\ufeffключ-é`, "token_key_unknown"}, "a line end": {`ключ-é\r\n`, "token_key_unknown"},
		"127 letters": {strings.Repeat("ж", 127), "token_key_unknown"}, "too long in bytes": {strings.Repeat("ж", 129), "token_malformed"},
	} {
		f("kid "+what, `{"alg":"HS256","kid":"`+c.kid+`"}`, hostileClaims, c.want)
	}
	for _, text := range []string{`\u0000`, `\r\nX-Admin: 1`, `ü`, `\ud83d\ude00`, `\u202eresu`, `\ufeff`, `a\u007f`} {
		f("sub "+text, hostileHead, `{"aud":"api","sub":"user`+text+`","exp":4000000000}`, "consumer_unknown")
		f("told "+text, hostileHead, `{"aud":"api","sub":"user","note":"x`+text+`","exp":4000000000}`, "token_claims")
		f("not told "+text, hostileHead, `{"aud":"api","sub":"user","other":"x`+text+`","exp":4000000000}`, "")
		f("aud "+text, hostileHead, `{"aud":"api`+text+`","sub":"user","exp":4000000000}`, "token_audience")
		f("alg "+text, `{"alg":"HS256`+text+`"}`, hostileClaims, "token_algorithm")
	}
	f("exp in digits of another script", hostileHead, `{"aud":"api","exp":٤٠٠٠٠٠٠٠٠٠}`, "token_malformed")
	f("a name that is written in two ways", hostileHead, `{"aud":"api","sub":"user","s\u0075b":"root","exp":4000000000}`, "token_malformed")
	f("names that only look alike", hostileHead, `{"aud":"api","sub":"user","ѕub":"root","exp":4000000000}`, "")
}

// TestHugeToken: a token past the bound is not looked at, whatever is in it.
func TestHugeToken(t *testing.T) {
	judge, sign := hostile(t)
	f := func(bytes int, want string) {
		t.Helper()
		text := sign(hostileHead, strings.Replace(hostileClaims, "}", `,"pad":"`+strings.Repeat("x", bytes)+`"}`, 1))
		var got string
		if allocs := testing.AllocsPerRun(1, func() { got = judge(text) }); got != want || want != "" && allocs > 0 {
			t.Errorf("%d bytes: %q, %v allocations", len(text), got, allocs)
		}
	}
	fits := mostPad(len(sign(hostileHead, strings.Replace(hostileClaims, "}", `,"pad":""}`, 1))))
	f(fits, "")
	f(fits+3, "token_malformed")
	f(1<<20, "token_malformed")
	if got := judge(strings.Repeat(".", 1<<20)); got != "token_malformed" {
		t.Error(got)
	}
	deep := fmt.Sprintf(`{"aud":"api","exp":4000000000,"x":%s1%s}`, strings.Repeat("[", 5000), strings.Repeat("]", 5000))
	if got := judge(sign(hostileHead, deep)); got != "token_malformed" {
		t.Errorf("deep: %q", got)
	}
}

// mostPad is about how many bytes more claims may have in a token that is so long.
func mostPad(bytes int) int { return (maxTokenBytes - bytes) / 4 * 3 }
