package upstream

import (
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/lb"
)

// KeySource is one place where an affinity key is looked for. What is there and empty is not there. A source of a passage, which
// has no request, is its client's address or nothing.
type KeySource struct {
	From   KeyFrom
	Name   string  // of the header, cookie, argument, parameter or claim
	Sticky *Sticky // of FromCookie: the client is given one when it has none; nil: it is not
	field  core.FieldID
}

// KeyFrom is the kind of a KeySource.
type KeyFrom uint8

const (
	FromClient KeyFrom = iota // the client's address
	FromHeader                // the first line of a field
	FromCookie
	FromQuery     // the first argument of a name; both are decoded, so that however one is written it is one key
	FromPath      // the path that the upstream is asked for
	FromParameter // of the route's path
	FromConsumer  // the consumer's name; nobody has proved to be one: nothing
	FromTenant    // the consumer's
	FromClaim     // of the token by which the consumer has proved who he is
)

// Sticky is a cookie that the gateway gives to clients. Its value is random, and the endpoint is chosen by its hash: so it says
// nothing about endpoints, and is good at every gateway with the same upstream, after a restart too.
type Sticky struct{ attributes []byte }

// StickySpec says how a cookie is given (RFC 6265bis, 4.1).
type StickySpec struct {
	TTL      time.Duration // whole seconds; 0: until the client ends
	Path     string        // begins with a slash
	Secure   bool
	HTTPOnly bool
	SameSite string // Strict, Lax or None; "": nothing is said
}

// NewKeySource gives a source. sticky may be nil.
func NewKeySource(from KeyFrom, name string, sticky *StickySpec) KeySource {
	k := KeySource{From: from, Name: name}
	if from == FromHeader {
		k.field = core.LookupField([]byte(name))
	}
	if sticky != nil {
		k.Sticky = &Sticky{sticky.attributes()}
	}
	return k
}

func (s *StickySpec) attributes() []byte {
	b := append([]byte("; Path="), s.Path...)
	if s.TTL > 0 {
		b = strconv.AppendInt(append(b, "; Max-Age="...), int64(s.TTL/time.Second), 10)
	}
	if s.Secure {
		b = append(b, "; Secure"...)
	}
	if s.HTTPOnly {
		b = append(b, "; HttpOnly"...)
	}
	if s.SameSite != "" {
		b = append(append(b, "; SameSite="...), s.SameSite...)
	}
	return b
}

// cookies are what a client is given with its answer so that it has the same keys the next time.
type cookies struct {
	count int
	list  [3]cookie // of canary, split and endpoint
}

type cookie struct {
	source *KeySource
	id     [32]byte
}

// issue gives the value of a new cookie. Sources of one name have one cookie.
func (c *cookies) issue(k *KeySource, w *core.Worker) []byte {
	for i := range c.list[:c.count] {
		if c.list[i].source.Name == k.Name {
			return c.list[i].id[:]
		}
	}
	n := &c.list[c.count]
	c.count++
	n.source = k
	return w.NewID(&n.id)
}

// give adds the cookies to an answer.
func (c *cookies) give(m *core.Message) {
	for i := range c.list[:c.count] {
		c.list[i].source.give(m, c.list[i].id[:])
	}
}

// affinity sets x's key. Without something that one is made of the exchange has no key.
func (b *Balancing) affinity(x *core.Exchange, given *cookies) {
	x.Attempt.Key, x.Attempt.Keyed = keyOf(b.Keys, x, given)
}

// keyOf gives the key by the first source that has something; false: none has. A source that gives cookies has always something.
func keyOf(keys []KeySource, x *core.Exchange, given *cookies) (key uint64, ok bool) {
	for i := range keys {
		k := &keys[i]
		if k.From == FromClient {
			if a := x.Client.Addr; a.IsValid() {
				return lb.HashAddr(a), true
			}
			continue
		}
		if text := k.text(x); text != "" {
			return lb.HashString(text), true
		}
		value := k.value(x)
		switch {
		case len(value) > 0:
		case k.Sticky != nil && !x.Passed:
			value = given.issue(k, x.Worker)
		default:
			continue
		}
		return lb.HashBytes(value), true
	}
	return 0, false
}

// value is what the source has, as it stands in the request.
func (k *KeySource) value(x *core.Exchange) (value []byte) {
	if x.Passed {
		return nil
	}
	m := &x.Request
	switch k.From {
	case FromHeader:
		switch k.field {
		case core.FieldHost:
			return m.Host()
		case core.FieldOther:
			value, _ = m.Lookup(k.Name)
		default:
			value = m.Get(k.field)
		}
	case FromCookie:
		value, _ = m.Cookie(k.Name)
	case FromQuery:
		value, _ = m.PlainArgument(k.Name)
	case FromPath:
		return m.Path
	case FromParameter:
		return x.Param(k.Name)
	}
	return value
}

// text is what the source has of what policies have found out before; "": nothing.
func (k *KeySource) text(x *core.Exchange) string {
	switch k.From {
	case FromConsumer:
		if x.Consumer != nil {
			return x.Consumer.Name
		}
	case FromTenant:
		if x.Consumer != nil {
			return x.Consumer.Tenant
		}
	case FromClaim:
		v, _ := x.Claims.Value(k.Name)
		return v
	}
	return ""
}

// give adds the cookie to an answer.
func (k *KeySource) give(m *core.Message, id []byte) {
	line := m.Begin(core.FieldSetCookie.String())
	line.String(k.Name)
	line.String("=")
	line.Bytes(id)
	line.Bytes(k.Sticky.attributes)
	line.End(core.FieldSetCookie)
}
