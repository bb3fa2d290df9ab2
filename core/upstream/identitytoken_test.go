package upstream

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/core"
)

// plainSigner gives the payload itself for a token, so that a test sees whose it is.
type plainSigner struct {
	signed atomic.Int64
	life   time.Duration
	fails  func(n int64) bool
}

func (s *plainSigner) Begin(payload string) core.Call[SignedIdentity] {
	return core.Call[SignedIdentity]{Cancel: func() {}, Do: func() SignedIdentity {
		n := s.signed.Add(1)
		for range n % 5 {
			runtime.Gosched() // others overtake it
		}
		if s.fails != nil && s.fails(n) {
			return SignedIdentity{}
		}
		now := time.Now()
		return SignedIdentity{Token: []byte(payload + "}"), From: now.Add(-time.Second).UnixNano(), Until: now.Add(s.life).UnixNano()}
	}}
}

// told runs so many tasks on a loop, each of which asks to be told of by one of the consumers.
func told(t *testing.T, h *host, to *IdentityToken, n int, consumer func(i int) *core.Consumer, check func(x *core.Exchange, err *core.Error)) {
	t.Helper()
	done := make(chan struct{})
	left := n
	h.on(0, func() {
		for i := range n {
			h.loops[0].Go(func() {
				x := h.workers[0].Begin()
				x.Downstream, x.Consumer = nobody{}, consumer(i)
				x.Request.AddName("x_identity.token", []byte("forged"))
				check(x, to.tell(x))
				h.workers[0].End(x)
				if left--; left == 0 {
					close(done)
				}
			})
		}
	})
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("tasks wait for ever")
	}
}

// TestIdentityTokenOfAnother: with next to no room for tokens, and many tasks that wait for them, each is told of by his own.
func TestIdentityTokenOfAnother(t *testing.T) {
	h := newHost(t, 1, defaults())
	signer := &plainSigner{life: time.Hour}
	all := NewIdentityTokens(IdentityTokenSpec{Header: "X-Identity-Token", Issuer: "g", Claims: []string{"consumer", "groups"}}, signer, 1)
	all.lanes[0].recent.Most = 2
	to := [2]*IdentityToken{all.For("a"), all.For("b")}
	for round := range 40 {
		told(t, h, to[round/8%2], 100, func(i int) *core.Consumer {
			n := rand.IntN(6)
			return &core.Consumer{Name: strings.Repeat("n", n), Groups: []string{strings.Repeat("g", 6-n)}}
		}, func(x *core.Exchange, err *core.Error) {
			var got struct {
				Audience string `json:"aud"`
				Consumer string
				Groups   []string
			}
			v, n := x.Request.Single("X-Identity-Token")
			if err != nil || n != 1 || json.Unmarshal(v, &got) != nil || got.Consumer != x.Consumer.Name && got.Consumer != "" ||
				!reflect.DeepEqual(got.Groups, x.Consumer.Groups) || got.Audience != string(rune('a'+round/8%2)) {
				t.Errorf("%+v is told of as %s, %v", x.Consumer, v, err)
			}
			if _, forged := x.Request.Lookup("x_identity.token"); forged {
				t.Error("a forged token is passed on")
			}
		})
	}
	h.on(0, func() {
		if c := all.Counts(0); c.Kept == 0 || c.Signed == 0 || c.Failed != 0 || c.Signed != uint64(signer.signed.Load()) || all.lanes[0].recent.Len() > 4 {
			t.Errorf("%+v, %d signed, %d kept", c, signer.signed.Load(), all.lanes[0].recent.Len())
		}
	})
}

// TestIdentityTokenOnce: those who wait for the same token wait for one signature, one that has ended is signed again, and a failure is
// nobody's token and not kept.
func TestIdentityTokenOnce(t *testing.T) {
	h := newHost(t, 1, defaults())
	signer := &plainSigner{life: time.Hour}
	same := func(int) *core.Consumer { return &core.Consumer{Name: "ann"} }
	f := func(all *IdentityTokens, n int, failures int, signed int64) {
		t.Helper()
		failed := 0
		told(t, h, all.For("a"), n, same, func(x *core.Exchange, err *core.Error) {
			if _, n := x.Request.Single("X-Identity-Token"); err != nil && (n != 0 || err != errIdentityUnavailable) || err == nil && n != 1 {
				t.Errorf("%d tokens, %v", n, err)
			}
			if err != nil {
				failed++
			}
		})
		if failed != failures || signer.signed.Load() != signed {
			t.Errorf("%d signatures, %d failures; want %d, %d", signer.signed.Load(), failed, signed, failures)
		}
	}
	fresh := func() *IdentityTokens {
		return NewIdentityTokens(IdentityTokenSpec{Header: "X-Identity-Token", Issuer: "g"}, signer, 1)
	}
	all := fresh()
	f(all, 50, 0, 1)
	f(all, 50, 0, 1)
	signer.life = -time.Second
	all = fresh()
	f(all, 1, 0, 2)
	f(all, 1, 0, 3)
	signer.life, signer.fails = time.Hour, func(n int64) bool { return n == 4 || n == 5 && panics() }
	all = fresh()
	f(all, 20, 20, 4)
	f(all, 20, 20, 5) // by a panic
	f(all, 20, 0, 6)
}

func panics() bool { panic("the signer panics") }

// TestIdentityPayload: whatever consumers are called, the payload is JSON that says just that, and no two that differ have the same.
func TestIdentityPayload(t *testing.T) {
	s := &IdentityTokenSpec{Claims: []string{"consumer", "tenant", "tier", "groups", "email", "none"}}
	pieces := []string{"", "a", `"`, `\`, `","tier":"gold`, "\x00", "\n", "é", "\xff", "]", "}", "日本", "\u2028", "'", "<"}
	draw := func() (text string) {
		for range rand.IntN(4) {
			text += pieces[rand.IntN(len(pieces))]
		}
		return text
	}
	seen := map[string]string{}
	for range 20000 {
		c := &core.Consumer{Name: draw(), Tenant: draw(), Tier: draw(), User: draw()}
		for range rand.IntN(3) {
			c.Groups = append(c.Groups, draw())
		}
		email := draw()
		x := &core.Exchange{Consumer: c, Claims: core.NewClaimTexts([]string{"email"}, []string{email})}
		payload := string(s.appendIdentity(append([]byte(nil), NewIdentityTokens(*s, nil, 1).For("a").begin...), x)) + "}"
		var got map[string]any
		if !utf8.ValidString(payload) || json.Unmarshal([]byte(payload), &got) != nil {
			t.Fatalf("%q is no JSON", payload)
		}
		subject := c.User
		if subject == "" {
			subject = c.Name
		}
		for name, text := range map[string]string{"sub": subject, "consumer": c.Name, "tenant": c.Tenant, "tier": c.Tier, "email": email} {
			if v, _ := got[name].(string); v != strings.ToValidUTF8(strings.ReplaceAll(text, "\xff", "\ufffd"), "") {
				t.Fatalf("%s is %q in %s, want %q", name, v, payload, text)
			}
		}
		who := fmt.Sprintf("%q", strings.ReplaceAll(fmt.Sprintf("%#v %s %s", *c, email, subject), `\xff`, "\ufffd"))
		if c.User != "" && !strings.Contains(who, "xff") {
			if other, known := seen[payload]; known && other != who {
				t.Fatalf("%s and %s are told of by %s", who, other, payload)
			}
			seen[payload] = who
		}
	}
}
