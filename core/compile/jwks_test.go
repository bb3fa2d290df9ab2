package compile

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/core/policy/jwt"
)

func TestKeysLifetime(t *testing.T) {
	f := func(control, age string, want time.Duration) {
		t.Helper()
		if got := lifetime(control, age); got != want {
			t.Errorf("%q, %q: %s, want %s", control, age, got, want)
		}
	}
	f("", "", keysDefault*4/5)
	f("public, max-age=300", "", 240*time.Second)
	f("max-age=300", "100", 160*time.Second)
	f("MAX-AGE=\"300\"", "x", 240*time.Second)
	f("max-age=0", "", keysFloor)
	f("max-age=300", "4000", keysFloor)
	f("max-age=31536000", "", keysCeiling)
	f("max-age=-5", "", keysDefault*4/5)
	f("no-store", "", keysFloor)
}

const oneKey = `{"keys":[{"kty":"OKP","kid":"a","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

// TestKeysOfFile: a file is read again when it changes; a wrong one leaves in force what is.
func TestKeysOfFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	s := newKeySource("file:" + path)
	f := func(text string, ok bool, keys int) *jwt.KeySet {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.fetch(t.Context()); (err == nil) != ok || s.Current().Len() != keys {
			t.Errorf("%v, %d keys, want %d", err, s.Current().Len(), keys)
		}
		return s.Current()
	}
	f("{}", false, 0)
	first := f(oneKey, true, 1)
	if f(oneKey, true, 1) != first {
		t.Error("the same text gave other keys, so that every cached token would be verified again")
	}
	if f("{", false, 1) != first {
		t.Error("a wrong text took the place of the keys")
	}
	if st := s.Status(); st.Successes != 2 || st.Failures != 2 || st.Problem == "" || st.IDs[0] != "a" {
		t.Errorf("%+v", st)
	}
}

// TestKeysOfPlace: what is not 200, whole and of at most 1 MiB leaves in force what is, and no redirect is followed.
func TestKeysOfPlace(t *testing.T) {
	var answer http.HandlerFunc
	place := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("User-Agent") != "sluice" || r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("asked with %v", r.Header)
		}
		answer(w, r)
	}))
	defer place.Close()
	s := newKeySource(place.URL + "/keys")
	defer s.stop()
	text := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	f := func(a http.HandlerFunc, problem string) {
		t.Helper()
		answer = a
		if err := s.fetch(t.Context()); (err == nil) != (problem == "") || err != nil && !strings.Contains(err.Error(), problem) {
			t.Errorf("got %v, want %q", err, problem)
		}
	}
	f(text(200, oneKey), "")
	f(text(500, oneKey), "status 500")
	f(http.RedirectHandler("/keys", http.StatusFound).ServeHTTP, "status 302")
	f(text(200, strings.Repeat(" ", keysBytes-len(oneKey))+oneKey), "")
	f(text(200, strings.Repeat(" ", keysBytes-len(oneKey)+1)+oneKey), "longer than 1 MiB")
	f(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(oneKey)+1))
		_, _ = io.WriteString(w, oneKey)
	}, "breaks off")
	if s.Current().Len() != 1 {
		t.Errorf("%d keys", s.Current().Len())
	}
	gone, cancel := context.WithCancel(t.Context())
	answer = func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}
	if err := s.fetch(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("whoever stops waits for an answer: %v", err)
	}
}

// TestKeysUnknown: of many who want a key that is not known, one has it fetched; nobody waits for ever.
func TestKeysUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newKeySource("https://id.test/keys")
		have := s.Current()
		start := time.Now()
		var all sync.WaitGroup
		for range unknownWaiters + 10 {
			all.Go(func() { s.Refresh(have, "") })
		}
		waiting := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.waiting
		}
		synctest.Wait()
		if n := waiting(); len(s.wake) != 1 || n != unknownWaiters {
			t.Errorf("%d fetches wanted, %d wait", len(s.wake), n)
		}
		all.Wait() // nobody fetches
		if took := time.Since(start); took != unknownWait || waiting() != 0 {
			t.Errorf("waited %s, %d still", took, waiting())
		}
		s.settle(time.Now())
		if s.want(time.Now()) != nil {
			t.Error("another fetch within ten seconds")
		}
		if s.want(time.Now().Add(unknownEvery)) == nil {
			t.Error("no fetch after ten seconds")
		}
	})
}
