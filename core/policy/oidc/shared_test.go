package oidc

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"testing"
	"time"
)

// TestMarker: an id is known to whoever has the secret that it was made with, and its mark is an HMAC.
func TestMarker(t *testing.T) {
	secrets := [][]byte{make([]byte, SecretBytes), make([]byte, SecretBytes)}
	for _, s := range secrets {
		_, _ = rand.Read(s)
	}
	marker := func(secrets ...[]byte) *Marker {
		m, err := NewMarker(secrets...)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	one, other, both := marker(secrets[0]), marker(secrets[1]), marker(secrets[1], secrets[0])
	id := one.NewID()
	if _, ok := HashID([]byte(id)); !ok || !one.Genuine([]byte(id)) || other.Genuine([]byte(id)) || !both.Genuine([]byte(id)) || one.Genuine([]byte(both.NewID())) {
		t.Errorf("who knows %q is wrong", id)
	}
	raw, _ := base64.RawURLEncoding.DecodeString(id)
	m := hmac.New(sha256.New, secrets[0])
	m.Write(raw[:markBytes])
	if !hmac.Equal(m.Sum(nil)[:markBytes], raw[markBytes:]) {
		t.Error("the mark is no HMAC")
	}
	for i := range raw {
		changed := append([]byte(nil), raw...)
		changed[i] ^= 1
		if one.Genuine([]byte(base64.RawURLEncoding.EncodeToString(changed))) {
			t.Errorf("byte %d does not matter", i)
		}
	}
	for _, text := range []string{"", NewID(), id[1:], id + "A", id[:42] + "%"} {
		if one.Genuine([]byte(text)) {
			t.Errorf("%q is genuine", text)
		}
	}
	if n := testing.AllocsPerRun(100, func() { both.Genuine([]byte(id)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	for _, wrong := range [][][]byte{nil, {secrets[0][1:]}} {
		if _, err := NewMarker(wrong...); err == nil {
			t.Errorf("secrets %v are taken", wrong)
		}
	}
}

// TestSealerKeys: what was sealed with the key before is opened still, with its own nonce and verifier.
func TestSealerKeys(t *testing.T) {
	before, after := make([]byte, SecretBytes), append(make([]byte, SecretBytes-1), 1)
	old, _ := NewSealer(before)
	next, _ := NewSealer(after, before)
	last, _ := NewSealer(after)
	a := newAttempt(12345, "/a")
	with := bound("p", "browser", "https://a/callback")
	state := []byte(old.seal(a, with))
	got, ok := next.open(state, with)
	if !ok || got.link != a.link || got.id != a.id || next.derived("nonce", "b", &got) != old.derived("nonce", "b", a) {
		t.Errorf("%+v %t", got, ok)
	}
	if _, ok := last.open(state, with); ok {
		t.Error("it is opened with another key")
	}
	if _, ok := last.open([]byte(next.seal(a, with)), with); !ok {
		t.Error("what is new is sealed with an old key")
	}
}

// TestGood: a copy is good as long as all is heard, and of this epoch; alone as long as grace lasts.
func TestGood(t *testing.T) {
	const grace = int64(time.Minute)
	h := NewShared(nil, nil)
	now := time.Now().UnixNano()
	s := NewSession(sha256.Sum256(nil), "ann", "", &State{}, now, now+int64(time.Hour))
	check := func(what string, after time.Duration, wantGood, wantAlone bool) {
		t.Helper()
		if good, alone := h.good(s, now+int64(after), grace); good != wantGood || alone != wantAlone {
			t.Errorf("%s: good %t, alone %t", what, good, alone)
		}
	}
	check("nothing was heard", 0, false, false)
	h.Doubt()
	h.Heard(now)
	check("never looked up", 0, false, false)
	s.Copied(1, h.Epoch())
	check("heard", 0, true, true)
	check("heard just now", CertainFor-1, true, true)
	check("silence", CertainFor, false, true)
	check("long silence", time.Duration(grace)-1, false, true)
	check("too long silence", time.Duration(grace), false, false)
	s.Stale()
	check("changed elsewhere", 0, false, true)
	s.Copied(2, h.Epoch())
	h.Lost()
	check("lost", 0, false, true)
	h.Doubt()
	h.Heard(now)
	check("heard again", 0, false, false)
	s.Copied(2, h.Epoch())
	check("looked up again", 0, true, true)
	s.End()
	check("ended", 0, false, false)
}

// TestPace: so many at once, and so many a second.
func TestPace(t *testing.T) {
	p, now := newPace(100), time.Now().UnixNano()
	taken := func(at int64) (n int) {
		for range 1000 {
			if p.take(at) {
				n++
			}
		}
		return n
	}
	if n := taken(now); n != 100 {
		t.Errorf("%d at once", n)
	}
	if n := taken(now + int64(500*time.Millisecond)); n != 50 {
		t.Errorf("%d after half a second", n)
	}
	if n := taken(now + int64(time.Hour)); n != 100 {
		t.Errorf("%d after an hour", n)
	}
}

// TestAbsent: what was looked for in vain is known for a while, in bounded room.
func TestAbsent(t *testing.T) {
	var a absent
	now := time.Now().UnixNano()
	one, other := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("a"))
	other[31] ^= 1 // in the same slot
	if a.has(&one, now) {
		t.Error("known before it is put")
	}
	a.put(&one, now)
	if !a.has(&one, now) || !a.has(&one, now+absentFor-1) || a.has(&one, now+absentFor) || a.has(&other, now) {
		t.Error("what is known is wrong")
	}
	if a.put(&other, now); a.has(&one, now) || !a.has(&other, now) {
		t.Error("the last does not take the place")
	}
}
