package oidc

import (
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// cookies are the lines of Set-Cookie, less the values. Immutable.
type cookies struct {
	login      core.Carrier // a browser is known by it while it logs in
	start      string       // of the session's
	attributes string
	clear      string
	loginLine  string // likewise of the login's
	loginRest  string
}

// loginSuffix makes the name of the login's cookie of the session's.
const loginSuffix = "-login"

// newCookies makes them. The login's is this host's alone and comes along when the provider sends the browser back, whatever holds for
// the session's.
func newCookies(s *Spec) cookies {
	name, secure := s.Cookie, ""
	if s.Secure {
		secure = "; Secure"
	}
	rest := "; Path=" + s.Path
	if s.Domain != "" {
		rest += "; Domain=" + s.Domain
	}
	rest += secure + "; HttpOnly; SameSite=" + strings.ToUpper(s.SameSite[:1]) + s.SameSite[1:]
	seconds := func(d time.Duration) string { return "; Max-Age=" + strconv.FormatInt(int64(d/time.Second), 10) }
	return cookies{
		login:      core.Carrier{Cookies: []string{name + loginSuffix}},
		start:      name + "=",
		attributes: rest + seconds(s.Lifetime),
		clear:      name + "=" + rest + seconds(0),
		loginLine:  name + loginSuffix + "=",
		loginRest:  "; Path=/" + secure + "; HttpOnly; SameSite=Lax" + seconds(attemptLife),
	}
}

func setCookie(x *core.Exchange, parts ...string) {
	w := x.Response.Begin(core.FieldSetCookie.String())
	for _, s := range parts {
		w.String(s)
	}
	w.End(core.FieldSetCookie)
}

// conceal takes the login's cookie out of the request, where the session's is taken out.
func (c *cookies) conceal(s *Spec, x *core.Exchange) {
	if s.Hide {
		c.login.Hide(&x.Request)
	}
}

// browser gives what the login's cookie says; "": there is none, or not just one.
func (c *cookies) browser(x *core.Exchange) string {
	v, n := c.login.Find(&x.Request)
	if _, ok := HashID(v); n != 1 || !ok {
		return ""
	}
	return string(v)
}

// redirect answers with another place, that nobody may keep.
func redirect(x *core.Exchange, status int, to string) core.Verdict {
	x.Answer(status, "", "")
	line(x, core.FieldLocation.String(), to)
	line(x, core.FieldCacheControl.String(), "no-store")
	return core.Respond
}

func line(x *core.Exchange, name, value string) {
	w := x.Response.Begin(name)
	w.String(value)
	w.End(core.LookupField([]byte(name)))
}
