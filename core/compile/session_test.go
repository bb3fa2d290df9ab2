package compile

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/policy/oidc"
)

// TestRefreshedMeanwhile: who comes when another loop has just refreshed a session's tokens asks nobody.
func TestRefreshedMeanwhile(t *testing.T) {
	kept, err := newSessions(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	q := &relying{provider: newProvider("https://id.test", &service{timeout: time.Second}), sessions: kept}
	now := time.Now().UnixNano()
	for refresh, want := range map[int64]error{now + int64(time.Hour): nil, now - 1: oidc.ErrUnavailable} {
		s := oidc.NewSession(sha256.Sum256(nil), "ann", "", &oidc.State{Refresh: refresh}, now, now+int64(time.Hour))
		got := q.BeginRefresh(s).Do().Err
		if want == nil && got != nil || want != nil && got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// TestSessionsAreSwept: those that have ended make room before anybody else has to, and are not shown.
func TestSessionsAreSwept(t *testing.T) {
	s, err := newSessions(3, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.bound(3, time.Minute)
	now := time.Now().UnixNano()
	put := func(id byte, begun, until int64) *oidc.Session {
		one := oidc.NewSession(sha256.Sum256([]byte{id}), "ann", "", &oidc.State{}, begun, until)
		s.put(one, now)
		return one
	}
	put(1, now, now+int64(time.Hour))
	idle := put(2, now-int64(2*time.Minute), now+int64(time.Hour))
	old := put(3, now, now)
	last := put(4, now, now+int64(time.Hour))
	if _, n, evicted := s.list(10); n != 2 || evicted != 0 || s.table.Find(idle.Hash()) != nil || s.table.Find(old.Hash()) != nil || s.table.Find(last.Hash()) != last {
		t.Errorf("%d sessions, %d evicted", n, evicted)
	}
}

// TestRestoreSessionsAfterClockStep: a session that cannot be, or was used in what is the future since the clock was set back, costs no other
// session its place.
func TestRestoreSessionsAfterClockStep(t *testing.T) {
	now := time.Now().UnixNano()
	kept := func(id byte, begun, used int64) KeptSession {
		hash := sha256.Sum256([]byte{id})
		return KeptSession{Hash: hash[:], Subject: "ann", Begun: begun, Used: used, Until: begun + int64(24*time.Hour), Claims: []byte(`{"sub":"ann"}`)}
	}
	bad := kept(2, now-2, now-1)
	bad.Claims = []byte(`{`)
	s, err := newSessions(10, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &Compiled{sessions: map[string]boundSessions{"p": {s, 10, time.Hour}}}
	err = c.RestoreSessions(map[string]KeptSessions{"p": {Secret: make([]byte, oidc.SecretBytes), Sessions: []KeptSession{
		kept(1, now-int64(time.Hour), now+int64(10*time.Minute)), bad, kept(3, now-int64(time.Hour), now-int64(time.Minute))}}})
	if err == nil {
		t.Error("nothing is said of the one that cannot be")
	}
	for _, id := range []byte{1, 3} {
		one := s.table.Find(sha256.Sum256([]byte{id}))
		if one == nil {
			t.Errorf("session %d is lost", id)
		} else if one.Used() > time.Now().UnixNano() {
			t.Errorf("session %d was used in the future: it would be idle for longer than it may", id)
		}
	}
	if _, n, _ := s.list(10); n != 2 {
		t.Errorf("%d sessions", n)
	}
}
