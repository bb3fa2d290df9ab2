package compile

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/policy/jwt"
)

// keyPlace is a place of keys in memory, so that time may be a test's: an HTTP server behind pipes. It lives in a bubble of synctest.
type keyPlace struct {
	source  *KeySource
	server  http.Server
	conns   chan net.Conn
	closing sync.WaitGroup

	mu     sync.Mutex
	answer func(n int) placeAnswer // to the nth fetch, from 0 on
	at     []time.Time             // when it was asked
}

type placeAnswer struct {
	status        int
	control, text string
}

func newKeyPlace(answer func(n int) placeAnswer) *keyPlace {
	p := &keyPlace{source: newKeySource("http://id.test/keys"), conns: make(chan net.Conn), answer: answer}
	p.server.Handler = p
	p.source.client.transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		p.conns <- theirs
		return ours, nil
	}
	p.closing.Go(func() { _ = p.server.Serve(p) })
	return p
}

func (p *keyPlace) Accept() (net.Conn, error) {
	if c, ok := <-p.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p *keyPlace) Close() error   { return nil }
func (p *keyPlace) Addr() net.Addr { return &net.UnixAddr{} }

func (p *keyPlace) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.answer(len(p.at))
	p.at = append(p.at, time.Now())
	if a.control != "" {
		w.Header().Set("Cache-Control", a.control)
	}
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.text)
}

// asked says how often.
func (p *keyPlace) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.at)
}

func (p *keyPlace) end() {
	p.source.stop()
	close(p.conns)
	_ = p.server.Close()
	p.closing.Wait()
}

// TestKeysFetchedByTime: keys are fetched again before they expire, with nobody asking: as the place says, within our bounds; after a failure
// soon, then ever more seldom, and the keys that are known stay.
func TestKeysFetchedByTime(t *testing.T) {
	other := strings.Replace(oneKey, `"a"`, `"b"`, 1)
	steps := []struct {
		placeAnswer
		next time.Duration // until the fetch that follows
		keys string        // in force then
	}{
		{placeAnswer{200, "max-age=300", oneKey}, 240 * time.Second, "[a]"},
		{placeAnswer{200, "max-age=5", oneKey}, 30 * time.Second, "[a]"},
		{placeAnswer{200, "no-store", oneKey}, 30 * time.Second, "[a]"},
		{placeAnswer{200, "max-age=31536000", oneKey}, time.Hour, "[a]"},
		{placeAnswer{200, "", oneKey}, 8 * time.Minute, "[a]"},
		{placeAnswer{500, "", other}, 1 * time.Second, "[a]"},
		{placeAnswer{404, "max-age=300", ""}, 2 * time.Second, "[a]"},
		{placeAnswer{200, "max-age=300", "{}"}, 4 * time.Second, "[a]"},
		{placeAnswer{500, "", ""}, 8 * time.Second, "[a]"},
		{placeAnswer{500, "", ""}, 16 * time.Second, "[a]"},
		{placeAnswer{500, "", ""}, 32 * time.Second, "[a]"},
		{placeAnswer{500, "", ""}, time.Minute, "[a]"},
		{placeAnswer{500, "", ""}, time.Minute, "[a]"},
		{placeAnswer{200, "max-age=300", other}, 240 * time.Second, "[b]"},
		{placeAnswer{500, "", ""}, 1 * time.Second, "[b]"}, // as after the first failure
		{placeAnswer{200, "max-age=300", oneKey}, 240 * time.Second, "[a]"},
	}
	synctest.Test(t, func(t *testing.T) {
		p := newKeyPlace(func(n int) placeAnswer { return steps[min(n, len(steps)-1)].placeAnswer })
		defer p.end()
		p.source.start(slog.New(slog.DiscardHandler))
		synctest.Wait()
		for i, s := range steps {
			st := p.source.Status()
			if n := p.asked(); n != i+1 || fmt.Sprint(st.IDs) != s.keys || time.Until(st.Next) != s.next || (st.Problem == "") != (s.status == 200 && s.text != "{}") {
				t.Fatalf("after answer %d, %+v: %d fetches, next in %s, %+v", i, s, n, time.Until(st.Next), st)
			}
			time.Sleep(s.next - 1)
			synctest.Wait()
			if n := p.asked(); n != i+1 {
				t.Errorf("after answer %d, %+v: fetched again too early", i, s)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
		}
		if n := p.asked(); n != len(steps)+1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// TestKeysFileByTime: a file is looked at every five seconds; while it is gone, or wrong, what was in it stays.
func TestKeysFileByTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(oneKey)
	synctest.Test(t, func(t *testing.T) {
		s := newKeySource("file:" + path)
		s.start(slog.New(slog.DiscardHandler))
		defer s.stop()
		f := func(what string, wait time.Duration, keys string, good, bad uint64) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			if st := s.Status(); fmt.Sprint(st.IDs) != keys || st.Successes != good || st.Failures != bad {
				t.Errorf("%s: %+v", what, st)
			}
		}
		f("at first", 0, "[a]", 1, 0)
		write(strings.Replace(oneKey, `"a"`, `"b"`, 1))
		f("just before", 5*time.Second-1, "[a]", 1, 0)
		f("a change", 1, "[b]", 2, 0)
		write("{")
		f("wrong", 5*time.Second, "[b]", 2, 1)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		f("gone", time.Second+2*time.Second, "[b]", 2, 3)
		write(oneKey)
		f("there again", 4*time.Second, "[a]", 3, 3)
		f("as before", 50*time.Second, "[a]", 13, 3)
	})
}

// TestKeysStale: while the place is away tokens are accepted for as long as is set, from the first fetch that fails on, to the moment; then they
// are refused for want of keys, and what is known of the source says so; when the place is there again they are accepted.
func TestKeysStale(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	set := `{"keys":[{"kty":"OKP","kid":"a","crv":"Ed25519","x":"` + b64(public) + `"}]}`
	text := b64([]byte(`{"alg":"EdDSA","kid":"a"}`)) + "." + b64([]byte(`{"exp":4000000000}`))
	text += "." + b64(ed25519.Sign(private, []byte(text)))
	synctest.Test(t, func(t *testing.T) {
		good := placeAnswer{200, "max-age=300", set}
		away := false
		p := newKeyPlace(func(int) placeAnswer {
			if away {
				return placeAnswer{status: 503}
			}
			return good
		})
		defer p.end()
		p.source.stale = 10 * time.Minute
		d, err := core.NewDirectory(nil)
		if err != nil {
			t.Fatal(err)
		}
		policy := jwt.New(jwt.Spec{}, p.source, core.NewConsumers(d), 1)
		f := func(what string, wait time.Duration, reason string, keys int, problem string) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			got := ""
			if _, _, err := policy.Verify(text, time.Now()); err != nil {
				got = err.Reason
			}
			if st := p.source.Status(); got != reason || st.Keys != keys || len(st.IDs) != keys || st.Problem != problem || st.Fetched.IsZero() {
				t.Errorf("%s: %q, %+v", what, got, st)
			}
		}
		turn := func(gone bool) {
			p.mu.Lock()
			defer p.mu.Unlock()
			away = gone
		}
		const life = 240 * time.Second
		const problem = `status 503`
		p.source.start(slog.New(slog.DiscardHandler))
		f("at first", 0, "", 1, "")
		turn(true)
		f("nobody has noticed", life-1, "", 1, "")
		f("away", 1, "", 1, problem)
		f("about to end", 10*time.Minute-1, "", 1, problem)
		f("away for too long", 1, "token_keys_unavailable", 0, problem)
		f("and longer", time.Hour, "token_keys_unavailable", 0, problem)
		turn(false)
		f("there again", keysRetryMost, "", 1, "")
		for i := range 3 { // what it was away for before does not count
			turn(true)
			f(fmt.Sprint("hiccup ", i), life+9*time.Minute, "", 1, problem)
			turn(false)
			f(fmt.Sprint("after hiccup ", i), keysRetryMost, "", 1, "")
		}
		p.source.mu.Lock()
		p.source.stale = 0
		p.source.mu.Unlock()
		turn(true)
		f("for ever", 24*time.Hour, "", 1, problem)
	})
}

// TestKeysStaleShortest: of policies that name one place the shortest time counts, 0 being for ever.
func TestKeysStaleShortest(t *testing.T) {
	f := func(want time.Duration, all ...time.Duration) {
		t.Helper()
		for range len(all) {
			c := &Compiled{stale: map[string]time.Duration{}}
			for _, stale := range all {
				c.keepAtMost("place", stale)
			}
			if got := c.stale["place"]; got != want {
				t.Errorf("%v: %s, want %s", all, got, want)
			}
			all = slices.Concat(all[1:], all[:1])
		}
	}
	f(0, 0)
	f(time.Minute, 0, time.Hour, time.Minute)
}

// TestKeysUnknownFlood: tokens that name ten thousand keys, all at once while the place is slow: it is asked once in ten seconds, as many wait
// as is bounded, for a bounded time, and nothing of them is kept.
func TestKeysUnknownFlood(t *testing.T) {
	const tokens, slow = 10_000, 2 * time.Second
	synctest.Test(t, func(t *testing.T) {
		p := newKeyPlace(func(n int) placeAnswer {
			if n > 0 {
				time.Sleep(slow)
			}
			return placeAnswer{200, "max-age=3600", oneKey}
		})
		defer p.end()
		p.source.start(slog.New(slog.DiscardHandler))
		d, err := core.NewDirectory(nil)
		if err != nil {
			t.Fatal(err)
		}
		policy := jwt.New(jwt.Spec{}, p.source, core.NewConsumers(d), 1)
		time.Sleep(unknownEvery)
		for round := range 3 {
			begin := time.Now()
			var all sync.WaitGroup
			var mu sync.Mutex
			reasons, waited := map[string]int{}, 0
			for i := range tokens {
				b64 := base64.RawURLEncoding.EncodeToString
				text := b64(fmt.Appendf(nil, `{"alg":"EdDSA","kid":"%d-%d"}`, round, i)) + "." + b64([]byte(`{"exp":4000000000}`)) + "." + b64(make([]byte, 64))
				all.Go(func() {
					_, _, err := policy.Verify(text, time.Now())
					mu.Lock()
					defer mu.Unlock()
					reasons[err.Reason]++
					if took := time.Since(begin); took > 0 {
						waited++
						if took > unknownWait {
							t.Errorf("one waited %s", took)
						}
					}
				})
			}
			all.Wait()
			if n := p.asked(); n != round+2 || waited != unknownWaiters || reasons["token_key_unknown"] != tokens {
				t.Errorf("round %d: %d fetches, %d waited, %v", round, n, waited, reasons)
			}
			if n := p.source.Status().Keys; n != 1 || p.source.waiting != 0 {
				t.Errorf("round %d: %d keys, %d wait", round, n, p.source.waiting)
			}
			p.source.Refresh(p.source.Current(), "")
			if n := p.asked(); n != round+2 {
				t.Errorf("round %d: fetched again within ten seconds", round)
			}
			time.Sleep(unknownEvery)
		}
	})
}

// For how long keys stay in force while their place is away does not begin anew with the process that takes over.
func TestStaleGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const stale = time.Hour
		text := []byte(oneKey)
		for away, want := range map[time.Duration]int{0: 1, 50 * time.Minute: 0} {
			before := newKeySource("http://id.test/keys")
			if err := before.restore(KeptKeys{Text: text, Age: away, Away: away}, stale); err != nil {
				t.Fatal(err)
			}
			kept, known := before.kept()
			if !known || kept.Away != away {
				t.Errorf("%+v are kept", kept)
			}
			p := newKeyPlace(func(int) placeAnswer { return placeAnswer{status: 503} })
			p.source.stale = stale
			if err := p.source.restore(kept, stale); err != nil {
				t.Error(err)
			}
			p.source.start(slog.New(slog.DiscardHandler))
			time.Sleep(11 * time.Minute)
			synctest.Wait()
			if st := p.source.Status(); st.Keys != want {
				t.Errorf("%s away before, and 11 minutes since: %d keys", away, st.Keys)
			}
			p.end()
		}
	})
}
