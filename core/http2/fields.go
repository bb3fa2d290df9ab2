package http2

import "github.com/sluice-gateway/sluice/core"

// kind says what a field's name means for the message, once and for all: it is stored with the field in the table.
type kind uint8

const (
	kindPlain         kind = iota // handed on
	kindCookie                    // may come in crumbs
	kindHost                      //
	kindContentLength             //
	kindExpect                    //
	kindTE                        //
	kindEnding                    // handed to this gateway, not to the next recipient
	kindAlike                     // looks like a field that upstreams trust
	kindFramingAlike              // looks like a field that frames the message
	kindConnection                // belongs to HTTP/1.1
	kindMethod                    //
	kindScheme                    //
	kindAuthority                 //
	kindPath                      //
	kindProtocol                  //
	kindStatus                    //
	kindPseudo                    // unknown pseudo-field
	kindUpper                     // a name with upper-case letters
	kindName                      // no name at all
	kindCount
)

// classify says what a name is, and gives the id of a known one.
func classify(name []byte) (kind, core.FieldID) {
	if len(name) > 0 && name[0] == ':' {
		return classifyPseudo(name), core.FieldOther
	}
	odd := false
	for _, c := range name {
		switch class := core.TokenClass(c); {
		case class == core.TokenNone:
			return kindName, core.FieldOther
		case 'A' <= c && c <= 'Z':
			return kindUpper, core.FieldOther
		case class == core.TokenOdd:
			odd = true
		}
	}
	switch {
	case len(name) == 0:
		return kindName, core.FieldOther
	case odd:
		return classifyOdd(name), core.FieldOther
	}
	id := core.LookupField(name)
	switch id {
	case core.FieldCookie:
		return kindCookie, id
	case core.FieldHost:
		return kindHost, id
	case core.FieldContentLength:
		return kindContentLength, id
	case core.FieldExpect:
		return kindExpect, id
	case core.FieldTE:
		return kindTE, id
	case core.FieldProxyAuthenticate, core.FieldProxyAuthorization:
		return kindEnding, id
	case core.FieldConnection, core.FieldKeepAlive, core.FieldProxyConnection, core.FieldTransferEncoding, core.FieldUpgrade:
		return kindConnection, id
	}
	return kindPlain, id
}

func classifyPseudo(name []byte) kind {
	switch string(name) {
	case ":method":
		return kindMethod
	case ":scheme":
		return kindScheme
	case ":authority":
		return kindAuthority
	case ":path":
		return kindPath
	case ":protocol":
		return kindProtocol
	case ":status":
		return kindStatus
	}
	return kindPseudo
}

// check says what is wrong with the value of a field of this kind, as far as the field alone shows.
func (k kind) check(value []byte) fault {
	switch k {
	case kindMethod:
		if !core.ValidToken(value) {
			return faultMethod
		}
	case kindScheme:
		if !core.EqualFold(value, "http") && !core.EqualFold(value, "https") {
			return faultScheme
		}
	case kindAuthority:
		if !core.ValidAuthority(value) {
			return faultAuthority
		}
	case kindPath:
		return checkPath(value)
	case kindProtocol:
		return checkProtocol(value)
	case kindStatus:
		if len(value) != 3 || value[0] < '1' || value[0] > '5' || !isDigit(value[1]) || !isDigit(value[2]) {
			return faultStatus
		}
	default:
		return k.checkRegular(value)
	}
	return faultNone
}

// checkRegular checks the value of a field that is no pseudo-field. White space around it, which HTTP/1.1 takes off, makes
// a message malformed here (RFC 9113, 8.2.1).
func (k kind) checkRegular(value []byte) fault {
	switch {
	case len(value) > 0 && (isBlank(value[0]) || isBlank(value[len(value)-1])):
		return faultBlank
	case !core.ValidValue(value):
		return faultValue
	case k == kindHost && len(value) > 0 && !core.ValidAuthority(value): // an empty one is judged at the end
		return faultHost
	case k == kindTE && !core.EqualFold(value, "trailers"):
		return faultTE
	}
	return faultNone
}

// checkPath allows what a target of HTTP/1.1 can be, in origin or asterisk form.
func checkPath(value []byte) fault {
	switch i := core.ScanTarget(value, 0); {
	case i < len(value) && value[i] == '#':
		return faultFragment
	case i < len(value):
		return faultTarget
	case len(value) == 0, value[0] != '/' && string(value) != "*":
		return faultTargetForm
	}
	return faultNone
}

// checkProtocol refuses what would let requests pass that nobody here has looked at.
func checkProtocol(value []byte) fault {
	switch {
	case !core.ValidToken(value):
		return faultProtocolName
	case core.EqualFold(value, "h2c"), core.EqualFold(value, "h2"), core.EqualFold(value, "http"), core.EqualFold(value, "tls"):
		return faultProtocol
	}
	return faultNone
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// classifyOdd tells names that resemble known ones from others.
func classifyOdd(name []byte) kind {
	switch core.Resembles(name) {
	case core.ResemblesFraming:
		return kindFramingAlike
	case core.ResemblesAsserted:
		return kindAlike
	}
	return kindPlain
}

// judgeTrailer says whether a field is kept as a trailer, dropped from it, or makes the message malformed. Framing and
// routing fields do, and whatever a header section of HTTP/2 could not have either.
func judgeTrailer(e *entry, name []byte) (keep bool, f fault) {
	switch e.kind {
	case kindHost, kindContentLength, kindConnection, kindTE, kindFramingAlike:
		return false, faultTrailer
	case kindMethod, kindScheme, kindAuthority, kindPath, kindProtocol, kindStatus, kindPseudo:
		return false, faultTrailerPseudo
	case kindUpper, kindName:
		return false, kindFaults[e.kind]
	case kindAlike:
		return false, e.fault
	}
	if e.fault != faultNone {
		return false, e.fault
	}
	if e.id != core.FieldOther {
		return core.UntrailedFields>>e.id&1 == 0, faultNone
	}
	return core.MayTrail(name), faultNone
}
