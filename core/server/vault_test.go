package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/server/vault"
)

// fakeVault answers as OpenBao does: tokens with a life, AppRole, version 2 of the key-value engine under secret/, sealed or not.
type fakeVault struct {
	url string

	mu      sync.Mutex
	sealed  bool
	raw     string // said in the place of a secret
	life    time.Duration
	secrets map[string]map[string]any
	tokens  map[string]time.Time // when they end
	logins  int
	renewed int
	reads   int
}

func newFakeVault(t testing.TB) *fakeVault {
	t.Helper()
	v := &fakeVault{life: time.Hour, secrets: map[string]map[string]any{}, tokens: map[string]time.Time{"root-token": time.Now().Add(time.Hour)}}
	s := httptest.NewServer(v)
	t.Cleanup(s.Close)
	v.url = s.URL
	return v
}

func (v *fakeVault) do(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

func (v *fakeVault) set(path, key, value string) {
	v.do(func() { v.secrets[path] = map[string]any{key: value} })
}

// ServeHTTP answers one request.
func (v *fakeVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	say := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	refuse := func(status int, errors ...string) { say(status, map[string]any{"errors": errors}) }
	type object = map[string]any
	if v.sealed {
		refuse(503, "Vault is sealed")
		return
	}
	if r.URL.Path == "/v1/auth/approle/login" && r.Method == "POST" {
		var who struct {
			Role   string `json:"role_id"`
			Secret string `json:"secret_id"`
		}
		if json.NewDecoder(r.Body).Decode(&who) != nil || who.Role != "gateway" || who.Secret != "s3cret-id" {
			refuse(400, "invalid role or secret ID")
			return
		}
		v.logins++
		text := fmt.Sprintf("hvs.%d", v.logins)
		v.tokens[text] = time.Now().Add(v.life)
		say(200, object{"auth": object{"client_token": text, "lease_duration": int(v.life.Seconds()), "renewable": true}})
		return
	}
	mine := r.Header.Get("X-Vault-Token")
	if end, known := v.tokens[mine]; !known || time.Now().After(end) || r.Header.Get("X-Vault-Namespace") != "shop" {
		refuse(403, "permission denied")
		return
	}
	path, secret := strings.CutPrefix(r.URL.Path, "/v1/secret/data/")
	switch {
	case r.URL.Path == "/v1/auth/token/lookup-self":
		say(200, object{"data": object{"ttl": int(time.Until(v.tokens[mine]).Seconds()), "renewable": true}})
	case r.URL.Path == "/v1/auth/token/renew-self" && r.Method == "POST":
		v.renewed++
		v.tokens[mine] = time.Now().Add(v.life)
		say(200, object{"auth": object{"client_token": mine, "lease_duration": int(v.life.Seconds()), "renewable": true}})
	case secret && v.raw != "":
		_, _ = w.Write([]byte(v.raw))
	case secret && r.Method == "GET":
		v.reads++
		keys, known := v.secrets[path]
		if !known {
			refuse(404)
			return
		}
		say(200, object{"data": object{"data": keys, "metadata": object{"version": 3, "deletion_time": "", "destroyed": false}}})
	default:
		refuse(403, "permission denied")
	}
}

func (v *fakeVault) spec() vault.Spec {
	return vault.Spec{Address: v.url, Namespace: "shop", Timeout: time.Second, RoleID: "gateway", SecretID: "s3cret-id", Mount: "approle"}
}

func newVaultClient(t testing.TB, spec vault.Spec) *vault.Client {
	t.Helper()
	c, err := vault.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestVault: who may read what, and which errors say so without telling secrets.
func TestVault(t *testing.T) {
	v := newFakeVault(t)
	v.set("shop/a b", "key", "value")
	ctx := t.Context()
	c := newVaultClient(t, v.spec())
	for range 3 {
		if keys, err := c.Read(ctx, "secret", "shop/a b"); err != nil || keys["key"] != "value" {
			t.Errorf("got %v, %v", keys, err)
		}
	}
	v.do(func() {
		if v.logins != 1 {
			t.Errorf("%d logins", v.logins)
		}
		clear(v.tokens) // revoked
	})
	if keys, err := c.Read(ctx, "secret", "shop/a b"); err != nil || keys["key"] != "value" {
		t.Errorf("after the token was revoked: %v, %v", keys, err)
	}
	f := func(what string, spec vault.Spec, mount, path string, want error) {
		t.Helper()
		c := newVaultClient(t, spec)
		_, err := c.Read(ctx, mount, path)
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
		for _, secret := range []string{"s3cret", "wrong-token", "root-token"} {
			if strings.Contains(fmt.Sprint(err), secret) {
				t.Errorf("%s: the error tells a secret: %v", what, err)
			}
		}
	}
	wrong, other, by := v.spec(), v.spec(), v.spec()
	wrong.SecretID = "s3cret-other"
	other.Namespace = ""
	by.RoleID, by.Token = "", "wrong-token"
	f("no such secret", v.spec(), "secret", "other", vault.ErrMissing)
	f("another engine", v.spec(), "kv", "shop/a b", vault.ErrDenied)
	f("a wrong secret id", wrong, "secret", "shop/a b", vault.ErrDenied)
	f("another namespace", other, "secret", "shop/a b", vault.ErrDenied)
	f("a wrong token", by, "secret", "shop/a b", vault.ErrDenied)
	for _, raw := range []string{"<html>", `{"data":{"data":null}}`, `{"data":"s3cret"}`, `{"data":{"data":"` + strings.Repeat("x", 2<<20) + `"}}`} {
		v.do(func() { v.raw = raw })
		f(raw[:6], v.spec(), "secret", "shop/a b", nil)
	}
	v.do(func() { v.raw, v.sealed = "", true })
	f("sealed", v.spec(), "secret", "shop/a b", vault.ErrSealed)
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the server does not see that the client has gone
		<-r.Context().Done()
	}))
	defer silent.Close()
	late := v.spec()
	late.Address, late.Timeout = silent.URL, 20*time.Millisecond
	f("no answer", late, "secret", "shop/a b", context.DeadlineExceeded)
}

// TestVaultTokens: tokens are renewed when two thirds of their life are over, and exchanged when they can no longer be.
func TestVaultTokens(t *testing.T) {
	v := newFakeVault(t)
	v.do(func() { v.life = 3 * time.Second })
	v.set("a", "key", "value")
	c := newVaultClient(t, v.spec())
	next, err := c.Tend(t.Context())
	if in := time.Until(next); err != nil || in < time.Second || in > 2*time.Second {
		t.Fatalf("renewed in %s, %v", in, err)
	}
	time.Sleep(time.Until(next))
	if next, err = c.Tend(t.Context()); err != nil || time.Until(next) < time.Second {
		t.Errorf("renewed in %s, %v", time.Until(next), err)
	}
	v.do(func() {
		if v.renewed != 1 || v.logins != 1 {
			t.Errorf("%d renewals, %d logins", v.renewed, v.logins)
		}
		clear(v.tokens)
	})
	time.Sleep(time.Until(next))
	if _, err := c.Tend(t.Context()); err != nil {
		t.Error(err)
	}
	v.do(func() {
		if v.logins != 2 {
			t.Errorf("%d logins", v.logins)
		}
		v.tokens["root-token"] = time.Now().Add(3 * time.Second)
	})
	spec := v.spec()
	spec.RoleID, spec.Token = "", "root-token"
	c = newVaultClient(t, spec)
	if _, err := c.Read(t.Context(), "secret", "a"); err != nil {
		t.Error(err)
	}
	if next, err := c.Tend(t.Context()); err != nil || time.Until(next) <= 0 || time.Until(next) > 2*time.Second {
		t.Errorf("a token of ours is renewed in %s, %v", time.Until(next), err)
	}
}
