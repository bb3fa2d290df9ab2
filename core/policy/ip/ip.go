// Package ip is the policy that lets clients pass by their address, and by the country that it is in.
package ip

import (
	"net/netip"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/core"
)

// Networks is a set of addresses, which may be asked from any loop, and never makes one wait.
type Networks interface {
	Contains(a netip.Addr) bool
}

// Countries is the table in force: its file may change while policies use it.
type Countries struct{ now atomic.Pointer[CountryTable] }

// Switch puts t in force, for the requests from now on.
func (c *Countries) Switch(t *CountryTable) { c.now.Store(t) }

// Table is the one in force, nil before the first.
func (c *Countries) Table() *CountryTable { return c.now.Load() }

// Spec says who passes. An empty list of countries names nobody.
type Spec struct {
	Allow, Deny []Networks // who is in any of a list's is in the list; nil: there is no list

	Countries                     *Countries // nil: nobody's country is looked for
	AllowCountries, DenyCountries []string   // codes of two capitals (ISO 3166-1)
	AllowUnknown, DenyUnknown     bool       // clients whose country is not known, as if it stood in that list
}

// mark is what lists say of a country.
type mark uint8

const (
	allowed mark = 1 << iota
	denied
)

// Policy is immutable; loops share it.
type Policy struct {
	allow, deny []Networks
	countries   *Countries
	marks       [codes]mark
	names       string
	byCountry   bool // only countries in a list pass, or networks in one
}

// New gives the policy: who is in a list of those denied does not pass, nor, if there is any list of those allowed, who is in none of
// these.
func New(s Spec) *Policy {
	p := &Policy{allow: s.Allow, deny: s.Deny, countries: s.Countries, names: countryNames(), byCountry: len(s.AllowCountries) > 0}
	for _, code := range s.AllowCountries {
		p.marks[countryOf(code)] |= allowed
	}
	for _, code := range s.DenyCountries {
		p.marks[countryOf(code)] |= denied
	}
	p.marks[0] = 0 // no code is that of what is not known
	if s.AllowUnknown {
		p.marks[0] = allowed
	}
	if s.DenyUnknown {
		p.marks[0] |= denied
	}
	return p
}

var (
	errDenied  = &core.Error{Status: 403, Reason: "address_denied"}
	errCountry = &core.Error{Status: 403, Reason: "country_denied"}
)

// OnRequest judges the client behind trusted proxies. One without an address, who came by a unix socket, is in no network and no known
// country.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	var m mark
	if p.countries != nil {
		m = p.locate(x)
	}
	a := x.Client.Addr
	if contains(p.deny, a) {
		return refuse(x, errDenied)
	}
	if m&denied != 0 {
		return refuse(x, errCountry)
	}
	if p.allow == nil && !p.byCountry || p.byCountry && m&allowed != 0 || contains(p.allow, a) {
		return core.Continue
	}
	if p.byCountry {
		return refuse(x, errCountry)
	}
	return refuse(x, errDenied)
}

func contains(list []Networks, a netip.Addr) bool {
	for _, n := range list {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// locate notes the client's country, for conditions and the log, and gives its mark.
func (p *Policy) locate(x *core.Exchange) mark {
	var c country
	if t := p.countries.Table(); t != nil {
		c = t.find(x.Client.Addr)
	}
	x.Client.Country = ""
	if c > 0 {
		x.Client.Country = p.names[2*(c-1) : 2*c]
	}
	return p.marks[c]
}

func refuse(x *core.Exchange, err *core.Error) core.Verdict {
	x.Fail(err)
	return core.Respond
}
