package jwt

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	gojwt "github.com/golang-jwt/jwt/v5"
	"github.com/sluice-gateway/sluice/core"
)

// Required is a claim that a token must have, with one of the values. A claim that is a list has one if any item is it.
type Required struct {
	Claim  string
	Values []string
}

// HeaderClaim is a field that tells the upstream of a claim.
type HeaderClaim struct{ Header, Claim string }

const (
	maxValueBytes = 1024
	maxNameBytes  = 256
	maxSeconds    = 1 << 40 // past which a time is no time
)

// judge checks the claims of a token whose signature is right, and gives what it is good for.
func (p *Policy) judge(t *token, d *core.Directory, now time.Time) (*grant, *core.Error) {
	exp, iat, err := p.times(t.claims, now)
	if err != nil {
		return nil, err
	}
	issuer, _ := t.claims["iss"].(string)
	if len(p.spec.Issuers) > 0 && !slices.Contains(p.spec.Issuers, issuer) {
		return nil, errIssuer
	}
	if len(p.spec.Audiences) > 0 && !p.intended(t.claims["aud"]) {
		return nil, errAudience
	}
	if most := p.spec.MaximumLifetime; most > 0 {
		if exp > float64(now.Add(most+p.spec.Leeway).Unix()) || iat > 0 && exp-iat > most.Seconds() {
			return nil, errLifetime
		}
	}
	for i := range p.spec.Claims {
		if r := &p.spec.Claims[i]; !r.holds(t.claims[r.Claim]) {
			return nil, errClaims
		}
	}
	if !p.scoped(t.claims) {
		return nil, errScope
	}
	g := &grant{}
	if g.consumer, err = p.consumer(t.claims, issuer, d); err != nil {
		return nil, err
	}
	for _, h := range p.spec.Headers {
		s, ok := valueText(t.claims[h.Claim])
		if !ok {
			return nil, errClaims
		}
		g.values = append(g.values, s)
	}
	g.keep(p.spec.Keep, t.claims)
	g.until = min(now.Add(p.spec.CacheFor).UnixNano(), time.Unix(int64(exp), 0).Add(p.spec.Leeway).UnixNano())
	return g, nil
}

// times checks exp, nbf and iat. They are numbers, nothing that could be read as one.
func (p *Policy) times(claims map[string]any, now time.Time) (exp, iat float64, failed *core.Error) {
	for name, to := range map[string]*float64{"exp": &exp, "nbf": new(float64), "iat": &iat} {
		v, given := claims[name]
		if !given {
			continue
		}
		n, ok := v.(json.Number)
		f, err := n.Float64()
		if !ok || err != nil || f < 0 || f > maxSeconds || math.IsNaN(f) {
			return 0, 0, errMalformed
		}
		*to = f
	}
	err := gojwt.NewValidator(gojwt.WithExpirationRequired(), gojwt.WithIssuedAt(), gojwt.WithLeeway(p.spec.Leeway),
		gojwt.WithTimeFunc(func() time.Time { return now })).Validate(gojwt.MapClaims(claims))
	switch {
	case err == nil:
		return exp, iat, nil
	case errors.Is(err, gojwt.ErrTokenExpired):
		return 0, 0, errExpired
	case errors.Is(err, gojwt.ErrTokenNotValidYet), errors.Is(err, gojwt.ErrTokenUsedBeforeIssued):
		return 0, 0, errEarly
	case claims["exp"] == nil:
		return 0, 0, errEndless
	}
	return 0, 0, errMalformed
}

// intended says whether one of the token's audiences is one of ours (RFC 7519, 4.1.3).
func (p *Policy) intended(aud any) bool {
	r := Required{Values: p.spec.Audiences}
	return r.holds(aud)
}

func (r *Required) holds(v any) bool {
	if list, ok := v.([]any); ok {
		return slices.ContainsFunc(list, r.is)
	}
	return r.is(v)
}

func (r *Required) is(v any) bool {
	s, ok := scalarText(v)
	return ok && slices.Contains(r.Values, s)
}

// scoped says whether the token has all the scopes that are asked for: of scope (RFC 8693, 4.2), or of scp, which some issuers write.
func (p *Policy) scoped(claims map[string]any) bool {
	if len(p.spec.Scopes) == 0 {
		return true
	}
	var has []string
	for _, name := range [...]string{"scope", "scp"} {
		switch v := claims[name].(type) {
		case string:
			has = append(has, strings.Fields(v)...)
		case []any:
			for _, item := range v {
				if s, ok := item.(string); ok {
					has = append(has, s)
				}
			}
		}
	}
	for _, s := range p.spec.Scopes {
		if !slices.Contains(has, s) {
			return false
		}
	}
	return true
}

// consumer is for whom the token stands: one of the directory, or one that is made of its claims. A token does not make its bearer one whom
// the configuration knows by other credentials.
func (p *Policy) consumer(claims map[string]any, issuer string, d *core.Directory) (*core.Consumer, *core.Error) {
	name := p.spec.Consumer
	if name == "" {
		name = "sub"
	}
	who, ok := scalarText(claims[name])
	switch {
	case !ok && p.spec.Consumer == "" && claims[name] == nil:
		return nil, nil
	case !ok || who == "" || len(who) > maxNameBytes || !isFieldText(who) || strings.Contains(who, " "):
		return nil, errConsumer
	}
	tier, one := word(claims, p.spec.Tier)
	tenant, other := word(claims, p.spec.Tenant)
	if !one || !other {
		return nil, errConsumer
	}
	c := d.BySubject(issuer, who)
	switch {
	case c == nil && d.Named(who) != nil:
		return nil, errConsumer
	case c == nil:
		return &core.Consumer{Name: who, Tier: tier, Tenant: tenant}, nil
	case c.Tier == "" && tier != "" || c.Tenant == "" && tenant != "":
		copied := *c
		if copied.Tier == "" {
			copied.Tier = tier
		}
		if copied.Tenant == "" {
			copied.Tenant = tenant
		}
		return &copied, nil
	}
	return c, nil
}

// word is what a claim says of the consumer: "" if there is none of that name, false if it is no word.
func word(claims map[string]any, name string) (s string, ok bool) {
	v, given := claims[name]
	if name == "" || !given {
		return "", true
	}
	s, ok = v.(string)
	return s, ok && len(s) <= maxNameBytes && isFieldText(s)
}

// keep holds those of the claims that are asked for and that the token has.
func (g *grant) keep(asked []string, claims map[string]any) {
	var names, values []string
	for _, name := range asked {
		if s, ok := valueText(claims[name]); ok && claims[name] != nil {
			names, values = append(names, name), append(values, s)
			g.kept += len(s)
		}
	}
	if len(names) > 0 {
		g.claims = core.NewClaims(names, values)
	}
}

// valueText is a claim as a field's value: of a list, its items with commas. A claim that is not there gives "".
func valueText(v any) (string, bool) {
	if v == nil {
		return "", true
	}
	var s string
	if list, ok := v.([]any); ok {
		var items []string
		for _, item := range list {
			one, ok := scalarText(item)
			if !ok || strings.Contains(one, ",") {
				return "", false
			}
			items = append(items, one)
		}
		s = strings.Join(items, ",")
	} else if s, ok = scalarText(v); !ok {
		return "", false
	}
	return s, len(s) <= maxValueBytes && isFieldText(s)
}

func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		if v {
			return "true", true
		}
		return "false", true
	}
	return "", false
}

// isFieldText says whether s can be the value of a field, and nobody reads it as anything else.
func isFieldText(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return strings.Trim(s, " ") == s
}
