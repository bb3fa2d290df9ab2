package core

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Claims are what an issuer says of a token's subject, as JSON has it. Numbers are json.Number.
type Claims map[string]any

// RequiredClaim is a claim that a token must have, with one of the values. A claim that is a list has one if any item is it.
type RequiredClaim struct {
	Claim  string
	Values []string
}

// ClaimHeader is a field that tells the upstream of a claim.
type ClaimHeader struct{ Header, Claim string }

// ClaimRules say what the claims of a token must be, and what becomes of them. A claim is named by its name, or, where there is none of that
// name, by the names on the way to it in objects, with dots between: realm_access.roles. Immutable.
type ClaimRules struct {
	Issuers   []string // empty: any
	Audiences []string // any of them; empty: any
	Claims    []RequiredClaim
	Scopes    []string // all of them
	Headers   []ClaimHeader
	Consumer  string   // claim that names the consumer; "": sub, if there is one
	Tier      string   // claim that names the consumer's tier; "": none
	Tenant    string   // claim that names the consumer's tenant; "": none
	Groups    string   // claim that names groups, which the consumer is in beside his own; "": none
	Roles     string   // claim that names roles, likewise; "": none
	Keep      []string // claims that policies behind this one ask for
}

// Grant is what a token is good for. Immutable.
type Grant struct {
	Consumer *Consumer   // nil: nobody is named
	Claims   *ClaimTexts // that are kept; nil: none are asked for, or there
	ID       string      // jti; "": it has none
	Subject  string      // sub, likewise
	Issued   int64       // iat, in seconds of Unix time; 0: it does not say
	Values   []string    // of the fields that the upstream gets, in the order of ClaimRules.Headers; "": none
}

const (
	maxClaimValue  = 1024
	maxClaimName   = 256
	maxClaimGroups = 100
	maxClaimDepth  = 16
)

// Judge checks claims that were verified, and gives what they are good for to a consumer of d.
func (p *ClaimRules) Judge(claims Claims, d *Directory) (*Grant, *Error) {
	issuer, _ := claims["iss"].(string)
	if len(p.Issuers) > 0 && !slices.Contains(p.Issuers, issuer) {
		return nil, errTokenIssuer
	}
	if len(p.Audiences) > 0 && !p.intended(claims["aud"]) {
		return nil, errTokenAudience
	}
	for i := range p.Claims {
		if r := &p.Claims[i]; !r.holds(claims.At(r.Claim)) {
			return nil, ErrTokenClaims
		}
	}
	if !p.scoped(claims) {
		return nil, errTokenScope
	}
	g := &Grant{}
	g.ID, _ = claims["jti"].(string)
	g.Subject, _ = claims["sub"].(string)
	issued, _, _ := claims.Time("iat")
	g.Issued = int64(issued)
	var err *Error
	if g.Consumer, err = p.consumer(claims, issuer, d); err != nil {
		return nil, err
	}
	for _, h := range p.Headers {
		s, ok := valueText(claims.At(h.Claim))
		if !ok {
			return nil, ErrTokenClaims
		}
		g.Values = append(g.Values, s)
	}
	g.Claims = claims.keep(p.Keep)
	return g, nil
}

// At is the claim that a name of ClaimRules is of; nil: there is none, or it is null.
func (c Claims) At(name string) any {
	if v, given := c[name]; given {
		return v
	}
	object, ok := map[string]any(c), true
	for ok {
		first, rest, deeper := strings.Cut(name, ".")
		if !deeper {
			return object[name]
		}
		name = rest
		object, ok = object[first].(map[string]any)
	}
	return nil
}

// Named is whom claims name that are refused; nil: nobody, or somebody whom they may not name.
func (p *ClaimRules) Named(claims Claims, d *Directory) *Consumer {
	issuer, _ := claims["iss"].(string)
	who, err := p.consumer(claims, issuer, d)
	if err != nil {
		return nil
	}
	return who
}

// keep gives those of the claims that are asked for and that there are; nil: none.
func (c Claims) keep(asked []string) *ClaimTexts {
	t := &ClaimTexts{}
	for _, name := range asked {
		v := c.At(name)
		s, ok := valueText(v)
		switch {
		case v == nil:
			continue
		case !ok:
			t.unfit = append(t.unfit, name)
			continue
		}
		var items []string
		if list, ok := v.([]any); ok {
			items = make([]string, 0, len(list))
			for _, item := range list {
				text, _ := scalarText(item)
				items = append(items, text)
			}
		}
		t.names, t.values, t.lists = append(t.names, name), append(t.values, s), append(t.lists, items)
	}
	if len(t.names)+len(t.unfit) == 0 {
		return nil
	}
	return t
}

// word is what a claim says of the consumer: "" if there is none of that name, false if it is no word.
func (c Claims) word(name string) (s string, ok bool) {
	if name == "" {
		return "", true
	}
	v := c.At(name)
	if v == nil {
		_, null := c[name]
		return "", !null
	}
	s, ok = v.(string)
	return s, ok && len(s) <= maxClaimName && isFieldText(s)
}

// intended says whether one of the token's audiences is one of ours (RFC 7519, 4.1.3).
func (p *ClaimRules) intended(aud any) bool {
	r := RequiredClaim{Values: p.Audiences}
	return r.holds(aud)
}

func (r *RequiredClaim) holds(v any) bool {
	if list, ok := v.([]any); ok {
		return slices.ContainsFunc(list, r.is)
	}
	return r.is(v)
}

func (r *RequiredClaim) is(v any) bool {
	s, ok := scalarText(v)
	return ok && slices.Contains(r.Values, s)
}

// scoped says whether the token has all the scopes that are asked for: of scope (RFC 8693, 4.2), or of scp, which some issuers write.
func (p *ClaimRules) scoped(claims Claims) bool {
	if len(p.Scopes) == 0 {
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
	for _, s := range p.Scopes {
		if !slices.Contains(has, s) {
			return false
		}
	}
	return true
}

// consumer is for whom the token stands: one of the directory, or one that is made of its claims. A token does not make its bearer one whom
// the configuration knows by other credentials.
func (p *ClaimRules) consumer(claims Claims, issuer string, d *Directory) (*Consumer, *Error) {
	name := p.Consumer
	if name == "" {
		name = "sub"
	}
	who, ok := scalarText(claims.At(name))
	switch {
	case !ok && p.Consumer == "" && claims.At(name) == nil:
		return nil, nil
	case !ok || who == "" || len(who) > maxClaimName || !isFieldText(who) || strings.Contains(who, " "):
		return nil, errTokenConsumer
	}
	tier, one := claims.word(p.Tier)
	tenant, other := claims.word(p.Tenant)
	if !one || !other {
		return nil, errTokenConsumer
	}
	groups, ok := claims.memberships(p.Groups)
	roles, also := claims.memberships(p.Roles)
	if !ok || !also {
		return nil, errTokenConsumer
	}
	c := &Consumer{Name: who}
	if known := d.BySubject(issuer, who); known != nil {
		*c = *known
	} else if d.Named(who) != nil {
		return nil, errTokenConsumer
	}
	if c.Tier == "" {
		c.Tier = tier
	}
	if c.Tenant == "" {
		c.Tenant = tenant
	}
	if len(groups) > 0 {
		c.Groups = append(slices.Clip(c.Groups), groups...)
	}
	if len(roles) > 0 {
		c.Roles = append(slices.Clip(c.Roles), roles...)
	}
	if sub, text := claims["sub"].(string); text && len(sub) <= maxClaimName && isFieldText(sub) {
		c.User = sub
	}
	return c, nil
}

// memberships are the groups or roles that a claim names: a list, or words with spaces between. false if it is neither, or if one cannot be any.
func (c Claims) memberships(name string) (all []string, ok bool) {
	if name == "" {
		return nil, true
	}
	switch v := c.At(name).(type) {
	case nil:
		return nil, true
	case string:
		all = strings.Fields(v)
	case []any:
		for _, item := range v {
			s, text := item.(string)
			if !text {
				return nil, false
			}
			all = append(all, s)
		}
	default:
		return nil, false
	}
	for _, g := range all {
		if g == "" || len(g) > maxClaimName || !isFieldText(g) || strings.Contains(g, ",") {
			return nil, false
		}
	}
	return all, len(all) <= maxClaimGroups
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
	return s, len(s) <= maxClaimValue && isFieldText(s)
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

// ReadClaims reads one JSON object. What recipients could read in two ways spoils it: a name that stands twice, text that is not
// UTF-8, half of a surrogate pair, anything behind the object. Depth is bounded, size is the caller's to bound.
func ReadClaims(b []byte) (Claims, bool) {
	d := jsontext.NewDecoder(bytes.NewBuffer(b))
	if d.PeekKind() != '{' {
		return nil, false
	}
	v, ok := readValue(d)
	if !ok {
		return nil, false
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, false
	}
	return v.(map[string]any), true
}

// readValue reads one value. The decoder refuses a name that stands twice in an object: recipients differ in which they take.
func readValue(d *jsontext.Decoder) (any, bool) {
	t, err := d.ReadToken()
	if err != nil || d.StackDepth() > maxClaimDepth {
		return nil, false
	}
	switch t.Kind() {
	case '{':
		object := map[string]any{}
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, false
			}
			key := name.String()
			v, ok := readValue(d)
			if !ok {
				return nil, false
			}
			object[key] = v
		}
		_, err = d.ReadToken()
		return object, err == nil
	case '[':
		var list []any
		for d.PeekKind() != ']' {
			v, ok := readValue(d)
			if !ok {
				return nil, false
			}
			list = append(list, v)
		}
		_, err = d.ReadToken()
		return list, err == nil
	case '"':
		return t.String(), true
	case '0':
		return json.Number(t.String()), true
	case 't', 'f':
		return t.Bool(), true
	}
	return nil, true // null
}

// maxSeconds is past which a time is no time.
const maxSeconds = 1 << 40

// Until is the earlier of two times in nanoseconds of Unix time: t, and so many seconds and some leeway, which may be later than nanoseconds can say.
func Until(t int64, seconds float64, leeway time.Duration) int64 {
	if at := seconds*float64(time.Second) + float64(leeway); at < float64(t) {
		return int64(at)
	}
	return t
}

// Time is a claim in seconds of Unix time. ok is false if it is there and is no number of them, or what could only be read as one.
func (c Claims) Time(name string) (seconds float64, given, ok bool) {
	v, given := c[name]
	if !given {
		return 0, false, true
	}
	n, ok := v.(json.Number)
	f, err := n.Float64()
	return f, true, ok && err == nil && f >= 0 && f <= maxSeconds
}
