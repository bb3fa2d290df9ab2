package http1

import "github.com/sluice-gateway/sluice/core"

// fields parses the field lines from i on and the empty line that ends them (RFC 9112, 5). It gives the head's length.
func (p *parser) fields(i int) (int, fault) {
	b := p.b
	for count := 0; ; count++ {
		if i < len(b) && b[i] == '\r' {
			return endOfLine(b, i, faultName)
		}
		name := i
		colon, id, f := scanName(b, i)
		if f != faultNone {
			return 0, f
		}
		start := colon + 1
		for start < len(b) && isBlank(b[start]) {
			start++
		}
		end := core.ScanText(b, start)
		if i, f = endOfLine(b, end, faultValue); f != faultNone {
			return 0, f
		}
		for end > start && isBlank(b[end-1]) {
			end--
		}
		if count == p.maxFields {
			return 0, faultTooManyFields
		}
		if id == lookAlike {
			id = core.FieldOther
			if p.watch == watchRequest {
				switch core.Resembles(b[name:colon]) { // responses are not mapped in this way
				case core.ResemblesFraming:
					return 0, faultLookAlike
				case core.ResemblesAsserted:
					continue
				}
			}
		}
		p.m.Receive(core.Field{Name: span(name, colon), Value: span(start, end), End: uint32(i), ID: id})
		if p.watch>>id&1 != 0 {
			if f := p.field(id, start, end); f != faultNone {
				return 0, f
			}
		}
	}
}

// lookAlike stands for a name with bytes that some recipients take for "-".
const lookAlike core.FieldID = 255

// scanName reads a field name and the colon directly after it.
func scanName(b []byte, i int) (colon int, id core.FieldID, f fault) {
	start, classes := i, uint8(0)
	for i < len(b) {
		class := core.TokenClass(b[i])
		if class == 0 {
			break
		}
		classes |= class
		i++
	}
	switch {
	case i == len(b):
		return 0, 0, faultMore
	case b[i] != ':' || i == start:
		return 0, 0, nameFault(b, start, i)
	case classes&core.TokenOdd != 0:
		return i, lookAlike, faultNone
	}
	return i, core.LookupField(b[start:i]), faultNone
}

// nameFault says what is wrong with the name that starts at start, where i is the first byte that is not of a token.
func nameFault(b []byte, start, i int) fault {
	switch c := b[i]; {
	case isBlank(c) && i == start:
		return faultFold
	case isBlank(c):
		return faultSpaceBeforeColon
	case c == '\n':
		return faultBareLF
	case c == '\r' && i+1 == len(b):
		return faultMore
	case c == '\r' && b[i+1] != '\n':
		return faultBareCR
	}
	return faultName
}
