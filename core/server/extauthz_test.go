package server

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	envoycore "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	rpc "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// checkService is a server of Envoy's ext_authz. What it says goes by Authorization.
type checkService struct {
	auth.UnimplementedAuthorizationServer
	addr   string
	asked  atomic.Int64
	gone   atomic.Int64 // calls that were given up
	hold   atomic.Pointer[chan struct{}]
	mu     sync.Mutex
	last   *auth.CheckRequest
	server *grpc.Server
}

func newCheckService(t testing.TB, options ...grpc.ServerOption) *checkService {
	t.Helper()
	s := &checkService{server: grpc.NewServer(options...)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	auth.RegisterAuthorizationServer(s.server, s)
	go func() { _ = s.server.Serve(l) }()
	t.Cleanup(s.server.Stop)
	return s
}

func (s *checkService) saw() *auth.CheckRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func option(name, value string) *envoycore.HeaderValueOption {
	return &envoycore.HeaderValueOption{Header: &envoycore.HeaderValue{Key: name, Value: value}}
}

func denied(code codes.Code, r *auth.DeniedHttpResponse) *auth.CheckResponse {
	return &auth.CheckResponse{Status: &rpcstatus.Status{Code: int32(code)}, HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: r}}
}

func granted(r *auth.OkHttpResponse) *auth.CheckResponse {
	return &auth.CheckResponse{Status: &rpcstatus.Status{}, HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: r}}
}

// Check is the service's answer.
func (s *checkService) Check(ctx context.Context, q *auth.CheckRequest) (*auth.CheckResponse, error) {
	s.asked.Add(1)
	s.mu.Lock()
	s.last = q
	s.mu.Unlock()
	if hold := s.hold.Load(); hold != nil {
		select {
		case <-*hold:
		case <-ctx.Done():
			s.gone.Add(1)
			return nil, ctx.Err()
		}
	}
	switch who := q.GetAttributes().GetRequest().GetHttp().GetHeaders()["authorization"]; who {
	case "User ann":
		beside := option("X-Roles", "b")
		//lint:ignore SA1019 what services still write must be understood
		beside.Append = wrapperspb.Bool(true)
		absent, present, more := option("X-Absent", "1"), option("X-Nowhere", "1"), option("X-Upstream", "2")
		absent.AppendAction, present.AppendAction = envoycore.HeaderValueOption_ADD_IF_ABSENT, envoycore.HeaderValueOption_OVERWRITE_IF_EXISTS
		//lint:ignore SA1019 likewise
		more.Append = wrapperspb.Bool(true)
		return granted(&auth.OkHttpResponse{
			Headers: []*envoycore.HeaderValueOption{option("x-user", "ann"), beside, option("Host", "evil"), option("Content-Length", "5"), option("X-Forwarded-For", "192.0.2.9"),
				option("transfer_encoding", "chunked"), option("X-Consumer-Name", "root")},
			HeadersToRemove:         []string{"X-Secret", "authorization", "host"},
			ResponseHeadersToAdd:    []*envoycore.HeaderValueOption{option("X-For-Client", "hello"), absent, present, more, option("Transfer-Encoding", "x")},
			QueryParametersToSet:    []*envoycore.QueryParameter{{Key: "user", Value: "ann & co"}},
			QueryParametersToRemove: []string{"token"},
		}), nil
	case "plain":
		return &auth.CheckResponse{}, nil
	case "teapot":
		return denied(codes.PermissionDenied, &auth.DeniedHttpResponse{Status: &envoytype.HttpStatus{Code: 418}, Body: "short and stout",
			Headers: []*envoycore.HeaderValueOption{option("Content-Type", "text/tea"), option("Set-Cookie", "a=1"), option("Set-Cookie", "b=2"), option("Connection", "close")}}), nil
	case "denied with 200":
		return denied(codes.PermissionDenied, &auth.DeniedHttpResponse{Status: &envoytype.HttpStatus{Code: 200}, Body: "come in"}), nil
	case "denied with rubbish":
		return denied(codes.PermissionDenied, &auth.DeniedHttpResponse{Headers: []*envoycore.HeaderValueOption{option("X-A", "a\r\nX-B: 1")}}), nil
	case "contradiction":
		a := denied(codes.OK, &auth.DeniedHttpResponse{})
		return a, nil
	case "split":
		return granted(&auth.OkHttpResponse{Headers: []*envoycore.HeaderValueOption{option("X-User", "a\r\nX-Admin: 1")}}), nil
	case "pseudo":
		return granted(&auth.OkHttpResponse{Headers: []*envoycore.HeaderValueOption{option(":path", "/admin")}}), nil
	case "error":
		return nil, rpc.Error(codes.Internal, "broken")
	case "error response":
		return &auth.CheckResponse{HttpResponse: &auth.CheckResponse_ErrorResponse{}}, nil
	}
	return &auth.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.Unauthenticated)}}, nil
}

// TestExtAuthz shows what the upstream and the client learn, over both protocols.
func TestExtAuthz(t *testing.T) {
	s := newCheckService(t)
	g := forwardGate(t, "grpc://"+s.addr, map[string]string{
		"/all":   `{ keyauth: { optional: true } }, { ext_authz: { url: "URL", context: { rules: all } } }`,
		"/some":  `{ ext_authz: { url: "URL", headers: [Authorization, X-Tenant], copy: X-User } }`,
		"/kept":  `{ ext_authz: { url: "URL", hide: off } }`,
		"/allow": `{ ext_authz: { url: "URL", on_error: allow, copy: X-User } }`,
	})
	who := func(name string) string { return "Authorization: " + name }
	judge(t, g.addr, []identityCase{
		{name: "allowed", path: "/all?token=t&a=1&user=root", headers: []string{who("User ann"), "X-User: root", "x_user: root", "X-Roles: a", "X-Secret: s", "x_secret: s"}, status: 200,
			sees:   []string{"/all?a=1&user=ann%20%26%20co HTTP/1.1\r\n", "X-User: ann\r\n", "X-Roles: a\r\nX-Roles: b\r\n"},
			hidden: []string{"root", "secret", "authorization", "evil", "192.0.2.9", "chunked", "content-length", "token"}},
		{name: "only what is listed", path: "/some", headers: []string{who("User ann"), "x_user: root"}, status: 200, sees: []string{"X-User: ann\r\n"}, hidden: []string{"root", "x-roles", "authorization"}},
		{name: "nothing hidden", path: "/kept", headers: []string{who("plain")}, status: 200, sees: []string{"Authorization: plain\r\n"}},
		{name: "nothing changed", path: "/all", headers: []string{who("plain"), "X-User: me"}, status: 200, sees: []string{"X-User: me\r\n"}},
		{name: "stripped", path: "/some", headers: []string{who("plain"), "X-User: me", "x_user: me"}, status: 200, hidden: []string{"x-user", "x_user"}},
		{name: "refused", path: "/all", headers: []string{who("nobody")}, status: 403},
		{name: "denied with 200", path: "/allow", headers: []string{who("denied with 200")}, status: 403},
		{name: "denied with rubbish", path: "/allow", headers: []string{who("denied with rubbish")}, status: 403},
		{name: "contradiction", path: "/all", headers: []string{who("contradiction")}, status: 503, reason: "forward_unavailable"},
		{name: "a field in a field", path: "/all", headers: []string{who("split")}, status: 503, reason: "forward_unavailable"},
		{name: "a path that was not routed", path: "/all", headers: []string{who("pseudo")}, status: 503, reason: "forward_unavailable"},
		{name: "an error", path: "/all", headers: []string{who("error")}, status: 503, reason: "forward_unavailable"},
		{name: "an error as answer", path: "/all", headers: []string{who("error response")}, status: 503, reason: "forward_unavailable"},
		{name: "an error that passes", path: "/allow", headers: []string{who("error"), "X-User: root"}, status: 200, hidden: []string{"root"}},
		{name: "no UTF-8", path: "/allow", headers: []string{who("nobody"), "X-A: \xff\xfe"}, status: 403},
	})
	res, _ := forwardGet(t, g.addr, "/all", map[string]string{"Authorization": "User ann"})
	if h := res.Header; h.Get("X-For-Client") != "hello" || h.Get("X-Absent") != "1" || h.Get("X-Nowhere") != "" || h.Get("X-Upstream") != "2" || len(res.TransferEncoding) > 0 {
		t.Errorf("the client has got %v", h)
	}
	res, body := forwardGet(t, g.addr, "/all", map[string]string{"Authorization": "teapot"})
	if res.StatusCode != 418 || body != "short and stout" || res.Header.Get("Content-Type") != "text/tea" || len(res.Header["Set-Cookie"]) != 2 {
		t.Errorf("%v %q", res, body)
	}
}

// TestExtAuthzAttributes: the service learns of the request what Envoy would tell it.
func TestExtAuthzAttributes(t *testing.T) {
	s := newCheckService(t)
	g := forwardGate(t, "grpc://"+s.addr, map[string]string{
		"/all":   `{ keyauth: { optional: true } }, { ext_authz: { url: "URL", body: 8B, context: { rules: all } } }`,
		"/bytes": `{ ext_authz: { url: "URL", body: 8B, body_as: bytes } }`,
		"/some":  `{ ext_authz: { url: "URL", headers: Authorization, copy: X-User } }`,
	})
	send := func(path, body string, headers map[string][]string) int {
		t.Helper()
		req, err := http.NewRequest("POST", "http://"+g.addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(req.Header, headers)
		req.Header.Set("Authorization", "plain")
		res, _ := forwardDo(t, req)
		return res.StatusCode
	}
	status := send("/all?a=%41", "hi é", map[string][]string{"X-Many": {"a", "b"}, "X-Odd": {"a\xffb"}, "X-Forwarded-For": {"192.0.2.1"}, "X-API-Key": {acmeKey}, "X-Request-ID": {"client's"}})
	a := s.saw().GetAttributes()
	h := a.GetRequest().GetHttp()
	local, _ := net.ResolveTCPAddr("tcp", g.addr)
	to, from := a.GetDestination().GetAddress().GetSocketAddress(), a.GetSource().GetAddress().GetSocketAddress()
	if status != 200 || h.GetMethod() != "POST" || h.GetPath() != "/all?a=%41" || h.GetQuery() != "a=%41" || h.GetHost() != g.addr || h.GetScheme() != "http" || h.GetProtocol() != "HTTP/1.1" ||
		h.GetBody() != "hi é" || h.GetSize() != 5 || h.GetId() == "" || h.GetId() == "client's" || a.GetContextExtensions()["rules"] != "all" || a.GetSource().GetService() != "acme" ||
		to.GetAddress() != "127.0.0.1" || to.GetPortValue() != uint32(local.Port) || from.GetAddress() != "127.0.0.1" || from.GetPortValue() == 0 ||
		time.Since(a.GetRequest().GetTime().AsTime()).Abs() > time.Minute {
		t.Errorf("%d: the service has seen %v", status, a)
	}
	for name, want := range map[string]string{":method": "POST", ":path": "/all?a=%41", ":authority": g.addr, "x-many": "a,b", "x-odd": "a!b", "x-forwarded-for": "127.0.0.1", "x-consumer-name": "acme"} {
		if got := h.GetHeaders()[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if s := h.String(); strings.Contains(s, acmeKey) || strings.Contains(s, "192.0.2.1") {
		t.Errorf("the service has seen what is not for it: %s", s)
	}
	if n := s.asked.Load(); send("/all", "a\xff", nil) != 400 || send("/all", "123456789", nil) != 413 || s.asked.Load() != n {
		t.Error("a body that cannot be judged has passed, or was asked about")
	}
	if status := send("/bytes", "a\xff", nil); status != 200 || string(s.saw().GetAttributes().GetRequest().GetHttp().GetRawBody()) != "a\xff" {
		t.Errorf("%d: the service has seen %v", status, s.saw())
	}
	send("/some", "x", map[string][]string{"X-Tenant": {"t"}, "x_user": {"root"}})
	if h := s.saw().GetAttributes().GetRequest().GetHttp(); h.GetHeaders()["authorization"] != "plain" || h.GetHeaders()["x-tenant"] != "" || h.GetHeaders()["x_user"] != "" || h.GetBody() != "" {
		t.Errorf("the service has seen %v", h)
	}
}

// TestExtAuthzAway: a service that does not answer keeps nobody but those who ask it, and is asked again once it is back.
func TestExtAuthzAway(t *testing.T) {
	s := newCheckService(t)
	g := forwardGate(t, "grpc://"+s.addr, map[string]string{
		"/short": `{ ext_authz: { url: "URL", timeout: 50ms } }`,
		"/long":  `{ ext_authz: { url: "URL", timeout: 30s } }`,
		"/kept":  `{ ext_authz: { url: "URL", cache: { key: header:Authorization } } }`,
	})
	plain := map[string]string{"Authorization": "plain"}
	hold := make(chan struct{})
	s.hold.Store(&hold)
	if res, _ := forwardGet(t, g.addr, "/short", plain); res.StatusCode != 503 {
		t.Errorf("%s", res.Status)
	}
	ctx, cancel := context.WithCancel(context.Background())
	asked, before := s.asked.Load(), s.gone.Load()
	go func() {
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+g.addr+"/long", nil)
		if res, err := http.DefaultClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	}()
	eventually(t, "the service is asked", func() bool { return s.asked.Load() > asked })
	if res, _ := forwardGet(t, g.addr, "/open", nil); res.StatusCode != 200 {
		t.Errorf("others wait: %s", res.Status)
	}
	cancel()
	eventually(t, "a question is given up whose client has gone", func() bool { return s.gone.Load() > before })
	s.hold.Store(nil)
	asked = s.asked.Load()
	for range 8 { // each loop keeps its own
		if res, _ := forwardGet(t, g.addr, "/kept", plain); res.StatusCode != 200 {
			t.Errorf("%s", res.Status)
		}
	}
	if n := s.asked.Load() - asked; n < 1 || n > 2 {
		t.Errorf("the service was asked %d times", n)
	}
	s.server.Stop()
	if res, _ := forwardGet(t, g.addr, "/long", plain); res.StatusCode != 503 {
		t.Errorf("%s", res.Status)
	}
}
