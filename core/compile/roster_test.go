package compile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core/config"
)

func specOf(addresses string) *config.Upstream {
	u := &config.Upstream{Name: "u"}
	for word := range strings.FieldsSeq(addresses) {
		address, weight, _ := strings.Cut(word, "*")
		u.Endpoints = append(u.Endpoints, config.Endpoint{Address: address, Weight: len(weight)})
	}
	return u
}

func listed(r *roster, u *config.Upstream) (text string) {
	for _, e := range r.endpoints(u) {
		text += " " + e.Address
	}
	return strings.TrimSpace(text)
}

func TestRoster(t *testing.T) {
	spec := specOf("a:1 10.0.0.1:80")
	r := roster{}
	f := func(what, addresses, want string) {
		t.Helper()
		next, err := r.change(spec, what, strings.Fields(addresses))
		if refused, is := strings.CutPrefix(want, "error: "); is {
			if err == nil || !strings.Contains(err.Error(), refused) {
				t.Errorf("%s %s: %v, want %q", what, addresses, err, refused)
			}
		} else if err != nil {
			t.Errorf("%s %s: %v", what, addresses, err)
		}
		if r = next; err == nil && listed(&r, spec) != want {
			t.Errorf("%s %s: got %q, want %q", what, addresses, listed(&r, spec), want)
		}
	}
	f("add", "10.0.0.2:80 unix:/x", "a:1 10.0.0.1:80 10.0.0.2:80 unix:/x")
	f("add", "10.0.0.2:80", "error: already")
	f("add", "a:1", "error: already")
	f("remove", "a:1 unix:/x", "10.0.0.1:80 10.0.0.2:80")
	f("remove", "a:1", "error: has no endpoint")
	f("remove", "10.0.0.2:80 b:1", "error: has no endpoint")
	f("remove", "10.0.0.2:80", "10.0.0.1:80") // the one before was refused whole
	f("add", "a:1", "a:1 10.0.0.1:80")
	f("set", "[::1]:8 a:1 [::1]:8", "a:1 [::1]:8")
	f("set", "10.0.0.1:80 a:1", "a:1 10.0.0.1:80")
	for _, bad := range []string{"b:1", "10.0.0.9", "10.0.0.9:0", "10.0.0.09:1", "10.0.0.9:01", "[fe80::1%eth0]:1", "[::0]:1", "unix:x", "unix:/" + strings.Repeat("x", 107), "unix:/a\n", "http://10.0.0.9:1"} {
		if _, err := r.change(spec, "add", []string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	var many []string
	for i := range maxAdded + 1 {
		many = append(many, fmt.Sprintf("10.1.%d.%d:80", i/250, i%250))
	}
	if _, err := r.change(spec, "add", many[:maxAdded]); err != nil {
		t.Error(err)
	}
	if _, err := r.change(spec, "add", many); err == nil {
		t.Errorf("%d are taken", len(many))
	}
}

// A reload keeps what was added and removed, but where the configuration has changed just that.
func TestRosterAfterReload(t *testing.T) {
	before := specOf("a:1 b:1 c:1")
	r, err := (&roster{}).change(before, "set", []string{"c:1", "10.0.0.1:80", "10.0.0.2:80"})
	if err != nil {
		t.Fatal(err)
	}
	f := func(spec, want string) {
		t.Helper()
		next := r.after(before, specOf(spec))
		if got := listed(&next, specOf(spec)); got != want {
			t.Errorf("%s: got %q, want %q", spec, got, want)
		}
	}
	f("a:1 b:1 c:1", "c:1 10.0.0.1:80 10.0.0.2:80")
	f("c:1 d:1 b:1 a:1", "c:1 d:1 10.0.0.1:80 10.0.0.2:80")
	f("a:1** b:1 c:1", "a:1 c:1 10.0.0.1:80 10.0.0.2:80")
	f("b:1 10.0.0.2:80*", "10.0.0.2:80 10.0.0.1:80")
}

// What was added counts once when a file comes to have it.
func TestRosterAndFiles(t *testing.T) {
	r, err := (&roster{}).change(specOf("a:1"), "add", []string{"10.0.0.1:80", "10.0.0.2:80"})
	if err != nil {
		t.Fatal(err)
	}
	spec := specOf("a:1 10.0.0.2:80***")
	if got := listed(&r, spec); got != "a:1 10.0.0.2:80 10.0.0.1:80" || r.endpoints(spec)[1].Weight != 2 {
		t.Errorf("got %q", got)
	}
}
