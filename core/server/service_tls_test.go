package server

import (
	cryptotls "crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// TestServicesOverTLS has services that judge requests asked over TLS, by HTTP and by gRPC: one whose certificate is an authority's that the
// configuration names, and whom it was issued to, is believed, and no other.
func TestServicesOverTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	cert, key := ca.issue(false, "auth.test")
	pair, err := cryptotls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	secured := &cryptotls.Config{Certificates: []cryptotls.Certificate{pair}}
	checks := newCheckService(t, grpc.Creds(credentials.NewTLS(secured)))
	plain := newAuthService(t)
	judges := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.TLS.ServerName != "auth.test" {
			t.Errorf("asked for %+v", r.TLS)
		}
		plain.judge(w, r)
	}))
	judges.TLS = secured.Clone()
	judges.Config.ErrorLog = log.New(io.Discard, "", 0) // it is refused on purpose
	judges.StartTLS()
	t.Cleanup(judges.Close)

	trusted, others := ca.writeCA(), other.writeCA()
	trust := func(ca, name string) string { return "tls: { ca: " + ca + ", server_name: " + name + " }" }
	routes := map[string]string{}
	for kind, url := range map[string]string{"forward": judges.URL + "/check", "ext_authz": "grpcs://" + checks.addr} {
		for path, tls := range map[string]string{"/right": ", " + trust(trusted, "auth.test"), "/authority": ", " + trust(others, "auth.test"), "/name": ", " + trust(trusted, "else.test"), "/system": ""} {
			routes["/"+kind+path] = `{ ` + kind + `: { url: "` + url + `", copy: X-User` + tls + ` } }`
		}
		routes["/"+kind+"/allow"] = `{ ` + kind + `: { url: "` + url + `", on_error: allow, copy: X-User, ` + trust(others, "auth.test") + ` } }`
	}
	g := forwardGate(t, "", routes)
	var cases []identityCase
	for _, kind := range []string{"forward", "ext_authz"} {
		user := []string{"Authorization: User ann", "X-User: root"}
		cases = append(cases,
			identityCase{name: kind, path: "/" + kind + "/right", headers: user, status: 200, sees: []string{"X-User: ann\r\n"}, hidden: []string{"root"}},
			identityCase{name: kind + " of another authority", path: "/" + kind + "/authority", headers: user, status: 503, reason: "forward_unavailable"},
			identityCase{name: kind + " of another name", path: "/" + kind + "/name", headers: user, status: 503, reason: "forward_unavailable"},
			identityCase{name: kind + " that the system does not know", path: "/" + kind + "/system", headers: user, status: 503, reason: "forward_unavailable"},
			identityCase{name: kind + " that may fail", path: "/" + kind + "/allow", headers: user, status: 200, hidden: []string{"x-user", "root"}})
	}
	judge(t, g.addr, cases)
}
