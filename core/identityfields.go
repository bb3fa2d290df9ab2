package core

import "bytes"

// IdentityFields are the names of the fields by which upstreams learn who a consumer is; "": they are not told. Immutable.
type IdentityFields struct {
	Consumer string // his name
	User     string // for whom his credential stands: a token's subject, a login's user name
	Tenant   string
	Groups   string // with commas between
	Roles    string // likewise
	Tier     string
	KeyID    string // the public id of his API key
	Token    string // which tells all of it, signed: upstream.IdentityTokens writes it
}

// names are all of them, told or not.
func (f *IdentityFields) names() [8]string {
	return [...]string{f.Consumer, f.User, f.Tenant, f.Groups, f.Roles, f.Tier, f.KeyID, f.Token}
}

// Strip removes what a client says of itself under these names, in whatever spelling. It is done before any policy reads the request.
func (f *IdentityFields) Strip(m *Message) {
	for _, name := range f.names() {
		if name != "" {
			m.RemoveLike(name)
		}
	}
}

// Tell writes the fields that c has a value for, in the place of those that are there. c nil: nobody is known, nothing is written.
func (f *IdentityFields) Tell(m *Message, c *Consumer) {
	if c == nil {
		return
	}
	tellField(m, f.Consumer, c.Name)
	tellField(m, f.User, c.User)
	tellField(m, f.Tenant, c.Tenant)
	tellField(m, f.Groups, c.Groups...)
	tellField(m, f.Roles, c.Roles...)
	tellField(m, f.Tier, c.Tier)
	tellField(m, f.KeyID, c.KeyID)
}

func tellField(m *Message, name string, values ...string) {
	if name == "" || len(values) == 0 || values[0] == "" {
		return
	}
	m.RemoveName(name)
	line := m.Begin(name)
	for i, v := range values {
		if i > 0 {
			line.String(",")
		}
		line.String(v)
	}
	line.End(LookupField([]byte(name)))
}

// ReceiveTrailer takes the trailer section of the request, less the lines whose names could be taken for those of fields that only the
// gateway writes on this route, or has written in the head: an upstream that joins trailers with it would believe them. It edits lines.
func (x *Exchange) ReceiveTrailer(lines []byte) {
	kept := lines[:0]
	for rest := lines; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n') + 1
		if n == 0 {
			n = len(rest)
		}
		name, _, _ := bytes.Cut(rest[:n], []byte{':'})
		if !x.writes(name) {
			kept = append(kept, rest[:n]...)
		}
		rest = rest[n:]
	}
	x.Request.Trailer = kept
}

// writes says whether a field of this name, or one that resembles it, is the gateway's alone to write.
func (x *Exchange) writes(name []byte) bool {
	if x.Request.Added(name) {
		return true
	}
	if s := x.Snapshot; s != nil && s.Identity != nil {
		for _, own := range s.Identity.names() {
			if looksLike(name, own) {
				return true
			}
		}
	}
	if x.Route == nil {
		return false
	}
	for i := range x.Route.Chain {
		for _, own := range x.Route.Chain[i].Writes {
			if looksLike(name, own) {
				return true
			}
		}
	}
	return false
}
