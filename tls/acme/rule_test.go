package acme

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestAllowNames(t *testing.T) {
	allow, err := AllowNames([]string{"One.Test.", "*.many.test"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"one.test": true, "a.many.test": true, "many.test": false, "a.b.many.test": false,
		"x.one.test": false, "test": false, "onetest": false} {
		if got := allow(t.Context(), name) == nil; got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
	for _, p := range []string{"", "*", "*.", "a.*.test", "**.test", "*.*.test", "192.0.2.1", "a b.test"} {
		if _, err := AllowNames([]string{p}); err == nil || !strings.Contains(err.Error(), "pattern") {
			t.Errorf("%q: %v", p, err)
		}
	}
	if _, err := AllowNames(nil); err == nil {
		t.Error("nothing is a rule")
	}
}

func TestAskURL(t *testing.T) {
	elsewhere := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch domain := r.URL.Query().Get("domain"); {
		case r.URL.Path != "/may":
			elsewhere++
		case r.Method != http.MethodGet || r.URL.Query().Get("key") != "x y":
			w.WriteHeader(http.StatusInternalServerError)
		case domain == "moved.test":
			http.Redirect(w, r, "/yes", http.StatusFound)
		case domain == "slow.test":
			<-r.Context().Done()
		case domain != "good.test":
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	may, err := AskURL(server.URL + "/may?key=x+y&domain=good.test")
	if err != nil {
		t.Fatal(err)
	}
	f := func(name, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		err := may(ctx, name)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", name, err, want)
		}
	}
	f("good.test", "")
	f("bad.test", "answers with status 404")
	f("moved.test", "answers with status 302")
	f("slow.test", "deadline")
	if elsewhere != 0 {
		t.Error("a redirect was followed")
	}
	server.Close()
	f("good.test", "cannot ask")
	for _, where := range []string{"", "/may", "ftp://a.test/", "http:///x", "http://u:p@a.test/", "http://a.test/#x", "http://[::1"} {
		if _, err := AskURL(where); err == nil {
			t.Errorf("%q is a rule", where)
		}
	}
}
