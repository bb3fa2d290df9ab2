package oidc

import (
	"bytes"
	"net/url"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// Why a browser that comes back has no session: 401 where another login would help, 403 where somebody else has a hand in it, or the provider
// has decided. Nothing that the provider says of it is told.
var (
	errState     = &core.Error{Status: 403, Reason: "login_state", Detail: "the state is not of this browser"}
	errExpired   = &core.Error{Status: 401, Reason: "login_expired"}
	errIssuer    = &core.Error{Status: 403, Reason: "login_issuer", Detail: "another provider has answered"}
	errDenied    = &core.Error{Status: 403, Reason: "login_denied", Detail: "the provider says access_denied"}
	errFailed    = &core.Error{Status: 403, Reason: "login_failed", Detail: "the provider reports an error"}
	errHost      = &core.Error{Status: 400, Reason: "login_host"} // a request that no browser makes: nobody is refused
	maxCodeBytes = 4096
)

// begin sends a browser to the provider. Whoever is none, or would lose what he sends, is told that he must log in.
func (p *Policy) begin(x *core.Exchange, a *lane) core.Verdict {
	if !isNavigation(x) {
		a.counts.Denied++
		return p.refuse(x, errRequired)
	}
	if p.shared != nil && p.shared.away() { // whoever comes back could not be let in
		return p.refuse(x, ErrStore)
	}
	e := p.provider.Endpoints()
	if e == nil {
		a.counts.Failed++
		return p.refuse(x, ErrUnavailable)
	}
	back, ok := p.redirectURI(x)
	if !ok {
		return p.refuse(x, errHost)
	}
	browser := p.cookies.browser(x)
	if browser == "" {
		browser = NewID()
	}
	at := newAttempt(x.Worker.Loop.Time(), linkOf(x.Request.Path, x.Request.Query))
	query := url.Values{"response_type": {"code"}, "client_id": {p.spec.ClientID}, "redirect_uri": {back}, "scope": {strings.Join(p.spec.Scopes, " ")},
		"state": {p.sealer.seal(at, bound(p.spec.Name, browser, back))}, "nonce": {p.sealer.derived("nonce", browser, at)},
		"code_challenge": {challenge(p.sealer.derived("verifier", browser, at))}, "code_challenge_method": {"S256"}}
	a.counts.Begun++
	return p.leave(x, with(e.Authorization, query), browser)
}

// leave sends the browser to the provider with the cookie by which it is known when it comes back.
func (p *Policy) leave(x *core.Exchange, to, browser string) core.Verdict {
	redirect(x, 302, to)
	setCookie(x, p.cookies.loginLine, browser, p.cookies.loginRest)
	return core.Respond
}

// with adds arguments to a URL, which may have some.
func with(to string, query url.Values) string {
	if strings.Contains(to, "?") {
		return to + "&" + query.Encode()
	}
	return to + "?" + query.Encode()
}

// isNavigation says whether a browser goes somewhere, rather than that a program asks for something.
func isNavigation(x *core.Exchange) bool {
	m := &x.Request
	if m.Method != core.MethodGet && m.Method != core.MethodHead || m.Upgrade {
		return false
	}
	if with, ok := m.Lookup("X-Requested-With"); ok && core.EqualFold(with, "XMLHttpRequest") {
		return false
	}
	if mode, ok := m.Lookup("Sec-Fetch-Mode"); ok && string(mode) != "navigate" {
		return false
	}
	return acceptsHTML(m.Get(core.FieldAccept))
}

// acceptsHTML says whether text/html stands in Accept itself: programs accept anything.
func acceptsHTML(accept []byte) bool {
	for len(accept) > 0 {
		var one []byte
		one, accept, _ = bytes.Cut(accept, []byte{','})
		kind, _, _ := bytes.Cut(one, []byte{';'})
		if kind = bytes.TrimSpace(kind); core.EqualFold(kind, "text/html") || core.EqualFold(kind, "application/xhtml+xml") {
			return true
		}
	}
	return false
}

// redirectURI is where the provider sends a browser back to: the callback on the host that was asked. The provider knows which may be.
func (p *Policy) redirectURI(x *core.Exchange) (string, bool) {
	host := x.Request.Host()
	for _, c := range host {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && bytes.IndexByte([]byte("-._[]:"), c) < 0 {
			return "", false
		}
	}
	scheme := x.Listener.Scheme
	if x.Client.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + strings.ToLower(string(host)) + p.spec.Callback, len(host) > 0
}

// callback takes a browser back (OpenID Connect Core, 3.1.2.5; RFC 9207 for iss).
func (p *Policy) callback(x *core.Exchange, a *lane) core.Verdict {
	at, l, err := p.returned(x)
	if err == nil && p.shared != nil && p.shared.away() {
		err = ErrStore // the code is not used: to come again will do
	}
	if err == nil {
		l.Before, _ = p.find(x, a) // of which nothing depends
		var answer Answer
		if err = p.ask(x, a, "", func() core.Call[Answer] { return p.provider.BeginLogin(l) }, &answer); err == nil {
			return p.enter(x, a, at.link, answer.ID)
		}
	}
	a.counts.Refused++
	return p.refuse(x, err)
}

// returned reads what a browser came back with.
func (p *Policy) returned(x *core.Exchange) (at attempt, l Login, failed *core.Error) {
	m := &x.Request
	if m.Method != core.MethodGet {
		return at, l, errMethod
	}
	arguments := [4]string{}
	for i, name := range [...]string{"state", "code", "error", "iss"} {
		v, n := m.Argument(name)
		if n > 1 || n == 1 && len(v) > max(maxState, maxCodeBytes) {
			return at, l, errState
		}
		arguments[i] = string(v)
	}
	browser := p.cookies.browser(x)
	back, ok := p.redirectURI(x)
	if browser == "" || !ok {
		return at, l, errState
	}
	if at, ok = p.sealer.open([]byte(arguments[0]), bound(p.spec.Name, browser, back)); !ok {
		return at, l, errState
	}
	now := x.Worker.Loop.Time()
	e := p.provider.Endpoints()
	switch {
	case now-at.at >= int64(attemptLife) || at.at-now > int64(attemptLife):
		return at, l, errExpired
	case e == nil:
		return at, l, ErrUnavailable
	case arguments[3] != "" && arguments[3] != e.Issuer:
		return at, l, errIssuer
	case arguments[2] == "access_denied":
		return at, l, errDenied
	case arguments[2] == "server_error" || arguments[2] == "temporarily_unavailable": // of its own (RFC 6749, 4.1.2.1)
		return at, l, ErrUnavailable
	case arguments[2] != "":
		return at, l, errFailed
	case arguments[1] == "" || len(arguments[1]) > maxCodeBytes:
		return at, l, ErrCode
	}
	l = Login{Code: arguments[1], Verifier: p.sealer.derived("verifier", browser, &at), Nonce: p.sealer.derived("nonce", browser, &at), RedirectURI: back,
		Attempt: at.id, Until: at.at + int64(2*attemptLife), Judge: p.judge}
	return at, l, nil
}

// enter gives a browser the id of its session, a new one whatever it had before, and lets it go where it wanted to. A cookie that is for
// this site only does not come along while the provider still redirects, so then the browser goes on by itself.
func (p *Policy) enter(x *core.Exchange, a *lane, link, id string) core.Verdict {
	a.counts.Done++
	if p.spec.SameSite == "strict" {
		x.Answer(200, "text/html; charset=utf-8", `<!doctype html><title>Login</title><meta http-equiv="refresh" content="0;url=`+strings.NewReplacer("&", "&amp;", "'", "&#39;").Replace(link)+`">`+"\n")
		line(x, core.FieldCacheControl.String(), "no-store")
	} else {
		redirect(x, 302, link)
	}
	setCookie(x, p.cookies.start, id, p.cookies.attributes)
	return core.Respond
}
