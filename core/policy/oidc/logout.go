package oidc

import (
	"bytes"
	"net/url"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

var errCrossSite = &core.Error{Status: 403, Reason: "logout_cross_site"}

// logout ends the session of a browser, at once, and sends it to the provider to end the one there (OpenID Connect RP-Initiated Logout
// 1.0). Other sites cannot make it do so.
func (p *Policy) logout(x *core.Exchange, a *lane) core.Verdict {
	m := &x.Request
	if m.Method != core.MethodGet && m.Method != core.MethodPost {
		return p.refuse(x, errMethod)
	}
	if site, ok := m.Lookup("Sec-Fetch-Site"); ok && string(site) == "cross-site" {
		return p.refuse(x, errCrossSite)
	}
	s, err := p.find(x, a)
	if err != nil {
		return p.refuse(x, err)
	}
	to := p.spec.AfterLogout
	if s != nil {
		if p.shared != nil {
			// While nobody can be told it has ended here, and the others are told later.
			if err := p.ask(x, a, "", func() core.Call[Answer] { return p.provider.BeginEnd(s) }, nil); err != nil && err != ErrStore {
				return p.refuse(x, err)
			}
		}
		s.End()
		a.counts.Logouts++
		if e := p.provider.Endpoints(); e != nil && e.EndSession != "" {
			query := url.Values{"client_id": {p.spec.ClientID}, "id_token_hint": {s.state.Load().IDToken}}
			if after, ok := p.absolute(x); ok {
				query.Set("post_logout_redirect_uri", after)
			}
			to = with(e.EndSession, query)
		}
	}
	redirect(x, 303, to)
	setCookie(x, p.cookies.clear)
	return core.Respond
}

// absolute is where the provider sends a browser that has logged out.
func (p *Policy) absolute(x *core.Exchange) (string, bool) {
	if !strings.HasPrefix(p.spec.AfterLogout, "/") {
		return p.spec.AfterLogout, true
	}
	back, ok := p.redirectURI(x)
	return strings.TrimSuffix(back, p.spec.Callback) + p.spec.AfterLogout, ok
}

// maxLogoutBody bounds what the provider says of a logout: a token in a form.
const maxLogoutBody = core.MaxTokenBytes + 1024

// backchannel hears from the provider that sessions have ended there (OpenID Connect Back-Channel Logout 1.0, 2.5 to 2.8).
func (p *Policy) backchannel(x *core.Exchange, a *lane) core.Verdict {
	if x.Request.Method != core.MethodPost {
		return p.refuse(x, errMethod)
	}
	body, err := x.HoldBody(maxLogoutBody)
	if err != nil {
		return p.refuse(x, err)
	}
	token, ok := formToken(x.Request.Get(core.FieldContentType), body)
	if !ok {
		return p.refuse(x, ErrLogoutToken)
	}
	err = p.ask(x, a, "", func() core.Call[Answer] { return p.provider.BeginLogout(token) }, nil)
	if err != nil {
		p.refuse(x, err)
	} else {
		a.counts.Told++
		x.Answer(200, "", "")
	}
	line(x, core.FieldCacheControl.String(), "no-store")
	return core.Respond
}

// formToken finds the one logout_token of a form.
func formToken(kind, body []byte) (string, bool) {
	kind, _, _ = bytes.Cut(kind, []byte{';'})
	if !core.EqualFold(bytes.TrimSpace(kind), "application/x-www-form-urlencoded") {
		return "", false
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["logout_token"]) != 1 {
		return "", false
	}
	return form.Get("logout_token"), true
}
