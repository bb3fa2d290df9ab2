package hmac

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/http1"
)

// The request, keys and signatures of RFC 9421, appendix B.
const (
	rfcRequest = "POST /foo?param=Value&Pet=dog HTTP/1.1\r\nHost: example.com\r\nDate: Tue, 20 Apr 2021 02:07:55 GMT\r\nContent-Type: application/json\r\n" +
		"Content-Digest: sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:\r\nContent-Length: 18\r\n\r\n"
	rfcBody   = `{"hello": "world"}`
	rfcNow    = 1618884480
	rfcSecret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
	rfcRSA    = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2\n+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+\n" +
		"oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq\ngDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W\n" +
		"Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4\naOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI\n2wIDAQAB\n-----END PUBLIC KEY-----\n"
	rfcEd = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n-----END PUBLIC KEY-----\n"

	b21Input = `sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"`
	b21      = "sig-b21=:d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==:"
	b22Input = `sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"`
	b22      = "sig-b22=:LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==:"
	b23Input = `sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"`
	b23      = "sig-b23=:bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==:"
	b25Input = `sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`
	b25      = "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:"
	b26Input = `sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`
	b26      = "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:"
)

// fewNonces remembers all.
type fewNonces map[string]bool

func (n fewNonces) Use(key, nonce string, until, now int64) (first, full bool) {
	first = !n[key+" "+nonce]
	n[key+" "+nonce] = true
	return first, until <= now
}

func rfcDirectory(t testing.TB) *core.Directory {
	t.Helper()
	secret, err := base64.StdEncoding.DecodeString(rfcSecret)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]any{"test-shared-secret": secret}
	for id, text := range map[string]string{"test-key-rsa-pss": rfcRSA, "test-key-ed25519": rfcEd} {
		block, _ := pem.Decode([]byte(text))
		if keys[id], err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			t.Fatal(err)
		}
	}
	d, err := core.NewDirectory([]core.ConsumerSpec{{Consumer: core.Consumer{Name: "rfc"}, SigningKeys: keys}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func exchange(t testing.TB, head string) *core.Exchange {
	t.Helper()
	x := &core.Exchange{Listener: &core.Listener{Scheme: "https"}}
	x.Request.Reset()
	if n, err := http1.ParseRequest(&x.Request, []byte(head), &http1.Limits{HeaderBytes: 8192, Headers: 50}); err != nil || n != len(head) {
		t.Fatalf("%q: %v", head, err)
	}
	x.Request.Adopt([]byte(head))
	x.Request.Body = unreadBody{}
	return x
}

// unreadBody is there, and not read.
type unreadBody struct{ core.Body }

// TestRFC9421 verifies the signatures of appendix B.2, and sees each of them fail when what it covers is another.
func TestRFC9421(t *testing.T) {
	d := rfcDirectory(t)
	f := func(what string, spec Spec, head, input, value string, now int64, want *core.Error) {
		t.Helper()
		spec.MaxAge, spec.Skew = time.Minute, 5*time.Second
		p := New(spec, core.NewConsumers(d), fewNonces{}, 1)
		who, err := p.verify(exchange(t, head), []string{input}, []string{value}, d, time.Unix(now, 0))
		if err != want || (err == nil) != (who != nil) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	change := func(from, to string) string { return strings.Replace(rfcRequest, from, to, 1) }
	f("B.2.1", Spec{}, rfcRequest, b21Input, b21, rfcNow, nil)
	f("B.2.2", Spec{Tag: "header-example"}, rfcRequest, b22Input, b22, rfcNow, nil)
	f("B.2.3", Spec{Body: 1, Require: []string{"@method", "@path", "@query", "@authority", "content-digest"}}, rfcRequest, b23Input, b23, rfcNow, nil)
	f("B.2.5", Spec{}, rfcRequest, b25Input, b25, rfcNow, nil)
	f("B.2.6", Spec{}, rfcRequest, b26Input, b26, rfcNow, nil)
	f("a field more, B.4", Spec{}, change("Content-Type", "Accept: */*\r\nContent-Type"), b25Input, b25, rfcNow, nil)
	f("another order, B.4", Spec{}, change("Date: Tue, 20 Apr 2021 02:07:55 GMT\r\nContent-Type: application/json\r\n", "Content-Type: application/json\r\nDate: Tue, 20 Apr 2021 02:07:55 GMT\r\n"), b25Input, b25, rfcNow, nil)
	f("a host in capitals, with the port", Spec{}, change("example.com", "EXAMPLE.com:443"), b25Input, b25, rfcNow, nil)
	f("an absolute target", Spec{}, change("/foo?", "https://example.com/foo?"), b23Input, b23, rfcNow, nil)
	f("another method", Spec{}, change("POST", "PUT"), b26Input, b26, rfcNow, errWrong)
	f("another path", Spec{}, change("/foo", "/bar"), b26Input, b26, rfcNow, errWrong)
	f("another query", Spec{}, change("Value", "value"), b23Input, b23, rfcNow, errWrong)
	f("another argument", Spec{}, change("dog", "cat"), b22Input, b22, rfcNow, errWrong)
	f("an argument twice", Spec{}, change("dog", "dog&Pet=dog"), b22Input, b22, rfcNow, errComponents)
	f("an argument twice, encoded", Spec{}, change("dog", "dog&P%65t=cat"), b22Input, b22, rfcNow, errComponents)
	f("another host", Spec{}, change("example.com", "example.org"), b25Input, b25, rfcNow, errWrong)
	f("another port", Spec{}, change("example.com", "example.com:80"), b25Input, b25, rfcNow, errWrong)
	f("a second line", Spec{}, change("Content-Type", "Content-Type: text/html\r\nContent-Type"), b25Input, b25, rfcNow, errWrong)
	f("a field less", Spec{}, change("Date: Tue, 20 Apr 2021 02:07:55 GMT\r\n", ""), b25Input, b25, rfcNow, errComponents)
	f("too little", Spec{Require: []string{"@method"}}, rfcRequest, b25Input, b25, rfcNow, errComponents)
	f("a body without a digest", Spec{Body: 1}, rfcRequest, b25Input, b25, rfcNow, errComponents)
	f("an argument is not the query", Spec{Require: []string{"@query-param"}}, rfcRequest, b22Input, b22, rfcNow, errComponents)
	f("old", Spec{}, rfcRequest, b25Input, b25, 1618884473+66, errExpired)
	f("early", Spec{}, rfcRequest, b25Input, b25, 1618884473-6, errEarly)
	f("no nonce", Spec{Nonce: true}, rfcRequest, b25Input, b25, rfcNow, errNonce)
	f("another tag", Spec{Tag: "x"}, rfcRequest, b22Input, b22, rfcNow, errTag)
	f("another key", Spec{}, rfcRequest, strings.Replace(b25Input, "test-shared", "other", 1), b25, rfcNow, errKey)
	f("a key of another type", Spec{}, rfcRequest, strings.Replace(b25Input, "test-shared-secret", "test-key-ed25519", 1), b25, rfcNow, errWrong)
	f("another algorithm", Spec{}, rfcRequest, b25Input+`;alg="ed25519"`, b25, rfcNow, errAlgorithm)
	f("a parameter more", Spec{}, rfcRequest, b25Input+`;x=1`, b25, rfcNow, errWrong)
	f("expires", Spec{}, rfcRequest, b25Input+`;expires=1618884474`, b25, rfcNow, errExpired)
	f("never created", Spec{}, rfcRequest, strings.Replace(b25Input, "created=1618884473;", "", 1), b25, rfcNow, errExpired)
	f("cut", Spec{}, rfcRequest, b25Input, "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIG:", rfcNow, errWrong)
	for _, of := range []string{`"@status"`, `"@unknown"`, `"@method" "@method"`, `"Date"`, `"date";sf`, `"date";req`, `"date";tr`, `"date";bs`, `"@method";x`, `"@query-param"`, `"@query-param";name=1`, `date`, `1`, `"x-absent"`, `"@signature-params"`} {
		f(of, Spec{}, rfcRequest, strings.Replace(b25Input, `"date" "@authority" "content-type"`, of, 1), b25, rfcNow, errComponents)
	}
	for _, input := range []string{"", "x", "sig-b25", `sig-b25="x"`, "sig-b25=(", `sig-b25=("date");created="1618884473"`, `sig-b25=("date");created=-1`, `sig-b25=("date");keyid=1`, `other=("date")`,
		b25Input + `, other=("date")`, "sig-b25=(" + strings.Repeat(`"a" `, 65) + ")", "sig-b25=(\"" + strings.Repeat("a", maxInput) + "\")", b25Input + ";nonce=:eA==:"} {
		f(input, Spec{}, rfcRequest, input, b25, rfcNow, errMalformed)
	}
	for _, value := range []string{"", "sig-b25", `sig-b25="x"`, "sig-b25=(:eA==:)", "sig-b25=:e", "other=:eA==:"} {
		f(value, Spec{}, rfcRequest, b25Input, value, rfcNow, errMalformed)
	}
}

// TestRFC9421Transformed verifies the request of appendix B.4 as proxies may change it, and as they may not.
func TestRFC9421Transformed(t *testing.T) {
	const (
		request = "GET /demo?name1=Value1&Name2=value2 HTTP/1.1\r\nHost: example.org\r\nDate: Fri, 15 Jul 2022 14:24:55 GMT\r\nAccept: application/json\r\nAccept: */*\r\n\r\n"
		input   = `transform=("@method" "@path" "@authority" "accept");created=1618884473;keyid="test-key-ed25519"`
		value   = "transform=:ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==:"
	)
	d := rfcDirectory(t)
	p := New(Spec{MaxAge: time.Minute}, core.NewConsumers(d), fewNonces{}, 1)
	f := func(what, head string, want *core.Error) {
		t.Helper()
		if _, err := p.verify(exchange(t, head), []string{input}, []string{value}, d, time.Unix(rfcNow, 0)); err != want {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	change := func(from, to string) string { return strings.Replace(request, from, to, 1) }
	f("as it is", request, nil)
	f("a field and an argument more", change("Host", "Accept-Language: en-US,en;q=0.5\r\nHost"), nil)
	f("another query", change("Value2", "value2&param=added"), nil)
	f("lines joined", change("application/json\r\nAccept: */*", "application/json, */*"), nil)
	f("white space", change("application/json", "  application/json  "), nil)
	f("the order of other fields", change("Host: example.org\r\nDate: Fri, 15 Jul 2022 14:24:55 GMT\r\n", "Date: Fri, 15 Jul 2022 14:24:55 GMT\r\nHost: example.org\r\n"), nil)
	f("another method and authority", strings.NewReplacer("GET", "POST", "example.org", "example.com").Replace(request), errWrong)
	f("lines in another order", change("application/json\r\nAccept: */*", "*/*\r\nAccept: application/json"), errWrong)
	f("a line less", change("Accept: */*\r\n", ""), errWrong)
}

// TestReplay: a nonce counts once, and one of a signature that is wrong not at all.
func TestReplay(t *testing.T) {
	d := rfcDirectory(t)
	p := New(Spec{MaxAge: time.Minute}, core.NewConsumers(d), fewNonces{}, 1)
	f := func(what, head, value string, want *core.Error) {
		t.Helper()
		if _, err := p.verify(exchange(t, head), []string{b21Input}, []string{value}, d, time.Unix(rfcNow, 0)); err != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	f("wrong", rfcRequest, "sig-b21=:eA==:", errWrong)
	f("right", rfcRequest, b21, nil)
	f("again", rfcRequest, b21, errReplay)
}

func TestDigest(t *testing.T) {
	f := func(field, body string, want bool) {
		t.Helper()
		if got := matches([]string{field}, []byte(body)); got != want {
			t.Errorf("%q: %v", field, got)
		}
	}
	const s512, s256 = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:", "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
	f(s512, rfcBody, true)
	f(s256, rfcBody, true)
	f(s256+", "+s512+", md5=:eA==:", rfcBody, true)
	f(s256, rfcBody+" ", false)
	f("sha-256=:eA==:, "+s512, rfcBody, false)
	f("md5=:eA==:", rfcBody, false)
	f("", rfcBody, false)
	f("sha-256", rfcBody, false)
	f(`sha-256="x"`, rfcBody, false)
	f("sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=", rfcBody, false)
	f(s512+", sha-256=:eA==:", rfcBody, false)
	f(s256, rfcBody[:len(rfcBody)-1], false)
	f(s256, "", false)
	f("sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:", "", true)
	f(s256+", sha-256=:eA==:", rfcBody, false) // the last of one name counts (RFC 9651, 3.2)
	f("sha-256=:eA==:, "+s256, rfcBody, true)  // likewise
	f("SHA-256"+s256[7:], rfcBody, false)      // keys are in lower case
	f(s256+";a=1", rfcBody, true)              // parameters say nothing
	f("sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9D:", rfcBody, false)
	f("sha-256=("+s256[8:]+")", rfcBody, false)
}

// FuzzRead: what is read can be written, and reads the same again.
func FuzzRead(f *testing.F) {
	f.Add(b21Input, b21)
	f.Add(b22Input+", "+b25Input, b22+", "+b25)
	f.Add(`a=("@query-param";name="\\\"");created=1;expires=2;x;y=?0;z=1.5`, "a=:eA==:")
	f.Fuzz(func(t *testing.T, input, value string) {
		all, ok := read([]string{input}, []string{value})
		for i := range all {
			text, err := httpsfv.Marshal(all[i].input)
			if err != nil || !ok {
				t.Fatalf("%q: %v", input, err)
			}
			again, ok := read([]string{"a=" + text}, []string{"a=:eA==:"})
			if !ok || again[0].created != all[i].created || again[0].keyID != all[i].keyID || again[0].nonce != all[i].nonce {
				t.Errorf("%q reads as %q", input, text)
			}
		}
	})
}
