package server

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// trap publishes an attacker's keys over HTTP and over TLS, and counts who so much as connects.
type trap struct {
	keys        *tokenIssuer
	certificate []byte // of the RSA key, by itself
	connections atomic.Int64
	plain, tls  string
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	p := &trap{keys: newTokenIssuer(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	var err error
	if p.certificate, err = x509.CreateCertificate(rand.Reader, template, template, &p.keys.rsa.PublicKey, p.keys.rsa); err != nil {
		t.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".pem") {
			_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: p.certificate})
			return
		}
		_, _ = w.Write([]byte(*p.keys.set.Load()))
	})
	serve := func(start func(*httptest.Server)) string {
		s := httptest.NewUnstartedServer(handler)
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				p.connections.Add(1)
			}
		}
		start(s)
		t.Cleanup(s.Close)
		return s.URL
	}
	p.plain, p.tls = serve((*httptest.Server).Start), serve((*httptest.Server).StartTLS)
	return p
}

// brought are the fields of a head by which a token offers the key that it is signed with (RFC 7515, 4.1.2, 4.1.3, 4.1.5 and 4.1.6).
func (p *trap) brought() map[string]map[string]any {
	jwk := map[string]any{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "r", "n": b64(p.keys.rsa.N.Bytes()), "e": "AQAB"}
	x5c := []string{base64.StdEncoding.EncodeToString(p.certificate)}
	return map[string]map[string]any{
		"jwk": {"jwk": jwk}, "x5c": {"x5c": x5c},
		"jku": {"jku": p.plain + "/keys"}, "jku over TLS": {"jku": p.tls + "/keys"},
		"x5u": {"x5u": p.plain + "/key.pem"}, "x5u over TLS": {"x5u": p.tls + "/key.pem"},
		"all": {"jwk": jwk, "x5c": x5c, "jku": p.plain + "/keys", "x5u": p.plain + "/key.pem"},
	}
}

// TestTokenBringsKey: a token that is signed by the key which it brings along, or says where to find, is nobody's, under whatever name of a key;
// nobody asks the place that it names. One that is signed by a key of ours counts, whatever else it brings.
func TestTokenBringsKey(t *testing.T) {
	i, p := newTokenIssuer(t), newTrap(t)
	g := runJWT(t, i)
	head := func(kid string, fields map[string]any) string {
		h := map[string]any{"alg": "RS256"}
		if kid != "" {
			h["kid"] = kid
		}
		for k, v := range fields {
			h[k] = v
		}
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var cases []identityCase
	for name, fields := range p.brought() {
		for kid, reason := range map[string]string{"r": "token_signature", "": "token_signature", "theirs": "token_key_unknown"} {
			if name == "jwk" {
				fields["jwk"].(map[string]any)["kid"] = kid
			}
			for _, iss := range []string{"https://id.test", p.plain} {
				token := p.keys.sign("RS256", head(kid, fields), claimsWith(map[string]any{"iss": iss}))
				cases = append(cases, identityCase{name: fmt.Sprintf("%s, kid %q, of %s", name, kid, iss), path: "/users", headers: bearerOf(token), status: 401,
					reason: reason, asks: `Bearer realm="sluice", error="invalid_token"`})
			}
		}
		right := i.sign("RS256", head("r", fields), claimsWith(nil))
		cases = append(cases, identityCase{name: name + ", signed by us", path: "/users", headers: bearerOf(right), status: 200})
	}
	judge(t, g.addr, cases)
	if n := p.connections.Load(); n > 0 {
		t.Errorf("the places that tokens name were connected to %d times", n)
	}
	if keys, err := g.admin.Keys(); err != nil || len(keys) != 1 || keys[0].Place != i.url || keys[0].Keys != 4 {
		t.Errorf("%+v, %v", keys, err)
	}
}
