package compile

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/oidc"
	"github.com/sluice-gateway/sluice/limits/redis"
)

func sharedKeys(t *testing.T, secrets ...string) *sessionKeys {
	t.Helper()
	var all []config.Secret
	for _, s := range secrets {
		all = append(all, config.Referenced(s))
	}
	k, err := newSessionKeys("space", all)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sharedSessions(t *testing.T, most int) *sessions {
	t.Helper()
	keys := sharedKeys(t, "a key that all nodes know, and nobody else")
	s, err := newSessions(most, &shared{Shared: oidc.NewShared(keys.marker, nil), keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	s.bound(most, time.Hour)
	return s
}

// TestSessionKeys: what one key has sealed is opened by those who have it, under its name, as it was.
func TestSessionKeys(t *testing.T) {
	old, both, next := sharedKeys(t, "one"), sharedKeys(t, "other", "one"), sharedKeys(t, "other")
	value := []byte("what nobody may read")
	sealed := old.seal(value, "name")
	if got, err := both.open(sealed, "name"); !bytes.Equal(got, value) || err != nil {
		t.Errorf("%q %v", got, err)
	}
	if bytes.Equal(sealed, old.seal(value, "name")) || bytes.Contains(sealed, value[:8]) {
		t.Error("it is not sealed")
	}
	if _, err := next.open(both.seal(value, "name"), "name"); err != nil {
		t.Error("the first key does not seal")
	}
	refused := map[string][]byte{"nothing": nil, "short": sealed[:sealedOverhead], "another version": append([]byte{2}, sealed[1:]...)}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		refused[string(rune('a'+i))] = changed
	}
	for name, b := range refused {
		if _, err := both.open(b, "name"); err == nil {
			t.Errorf("%s is opened", name)
		}
	}
	if _, err := old.open(sealed, "names"); err == nil {
		t.Error("it is opened under another name")
	}
	if _, err := next.open(sealed, "name"); err == nil {
		t.Error("it is opened with another key")
	}
	elsewhere, err := newSessionKeys("another space", []config.Secret{config.Referenced("one")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := elsewhere.open(sealed, "name"); err == nil {
		t.Error("it is opened in another space")
	}
	if a, b := old.groups("a")[0], both.groups("a"); a != b[1] || a == b[0] || a == old.groups("b")[0] || a == elsewhere.groups("a")[0] {
		t.Error("names of groups are wrong")
	}
}

// TestOvertaken: an end that is heard while a session is looked for is not lost, and where that cannot be known it is looked for again.
func TestOvertaken(t *testing.T) {
	s := sharedSessions(t, 10)
	h := s.shared
	one, other := sha256.Sum256([]byte("one")), sha256.Sum256([]byte("other"))
	since := h.news
	s.heardEnd(recordKey(other))
	if h.happened(one, since) || !h.happened(other, since) || h.happened(other, h.news) {
		t.Error("what was heard is wrong")
	}
	s.heardChange("no key")
	s.heardChange(recordKey(one))
	if !h.happened(one, since) {
		t.Error("a change is not heard")
	}
	since = h.news
	for range recentNews {
		s.heardEnd(recordKey(other))
	}
	if h.happened(one, since) {
		t.Error("as much as is remembered is too much")
	}
	if s.heardEnd(recordKey(other)); !h.happened(one, since) {
		t.Error("what is not remembered any more has not happened")
	}
}

// TestEndsWait: a session that has ended here is not found again before Redis knows; one that has begun later is.
func TestEndsWait(t *testing.T) {
	s := sharedSessions(t, 10)
	now := time.Now().UnixNano()
	begins := func(id string, at int64) *oidc.Session {
		return oidc.NewSession(sha256.Sum256([]byte(id)), "ann", "", &oidc.State{}, at, at+int64(time.Hour))
	}
	one := begins("one", now)
	s.shared.ends = []ending{{groups: []string{"ann"}, at: now, match: func(x *oidc.Session) bool { return x.Subject == "ann" }}, {hash: sha256.Sum256([]byte("two")), at: now}}
	for id, want := range map[string]bool{"one": false, "two": false, "three": true} {
		at := now
		if id == "three" {
			at++
		}
		x := begins(id, at)
		if got := s.settle(x.Hash(), x, &redis.Record{Version: 1, Used: at}, at); (got != nil) != want {
			t.Errorf("%s is found: %t", id, got != nil)
		}
	}
	s.settleEnd(&s.shared.ends[0])
	if got := s.settle(one.Hash(), one, &redis.Record{Version: 1, Used: now}, now); got != one || s.table.Find(one.Hash()) != one {
		t.Error("it is not found after Redis knows the rest")
	}
	if s.settle(one.Hash(), nil, nil, now) != nil || s.table.Find(one.Hash()) != nil || !one.Ended() {
		t.Error("what Redis does not know is found")
	}
}

// TestCopiesMakeRoom: a copy that makes room has not ended.
func TestCopiesMakeRoom(t *testing.T) {
	s := sharedSessions(t, 2)
	now := time.Now().UnixNano()
	var all []*oidc.Session
	for i := range 5 {
		one := oidc.NewSession(sha256.Sum256([]byte{byte(i)}), "ann", "", &oidc.State{}, now+int64(i), now+int64(time.Hour))
		one.Copied(1, 0)
		s.settle(one.Hash(), one, &redis.Record{Version: 1, Used: now}, now+int64(i))
		all = append(all, one)
	}
	if len(s.all) > 2 || s.table.Find(all[4].Hash()) == nil {
		t.Errorf("%d copies", len(s.all))
	}
	for _, one := range all {
		if one.Ended() {
			t.Error("a copy has ended")
		}
	}
}

// TestEndsOutliveReloads: who has ended while Redis is away has ended for what another configuration says of the same sessions, too.
func TestEndsOutliveReloads(t *testing.T) {
	t.Setenv("SLUICE_TEST_KEY", "a key that all nodes know, and nobody else")
	b := newBench(t)
	put := func(most int) *sessions {
		t.Helper()
		c := b.apply(fmt.Sprintf(`cluster: { redis: { addresses: ["127.0.0.1:1"], timeout: 100ms } }
policies: { people: { oidc: { issuer: "https://127.0.0.1:1", client: { id: gateway, secret: env:SLUICE_TEST_KEY }, sessions: { store: redis, key: env:SLUICE_TEST_KEY, most: %d } } } }
routes: [{ match: /*, use: people, respond: {} }]
`, most))
		return c.Logins[0].sessions
	}
	now := time.Now().UnixNano()
	one := oidc.NewSession(sha256.Sum256([]byte("one")), "ann", "", &oidc.State{}, now, now+int64(time.Hour))
	s := put(10)
	if _, err := s.revoke(t.Context(), ending{hash: one.Hash(), at: now}); err == nil {
		t.Fatal("Redis is there")
	}
	next := put(20)
	next.mu.Lock()
	defer next.mu.Unlock()
	if next == s || !next.shared.isEnding(one) {
		t.Error("who has logged out is let in again when Redis is there again")
	}
}
