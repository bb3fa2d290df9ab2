package ip

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// country is a code of two letters as a number below codes; 0: it is not known.
type country uint16

const (
	letters = 26
	codes   = 1 + letters*letters
)

// countryOf reads a code of ISO 3166-1, in capitals. What is none is not known.
func countryOf(code string) country {
	if len(code) != 2 || code[0] < 'A' || code[0] > 'Z' || code[1] < 'A' || code[1] > 'Z' {
		return 0
	}
	return 1 + letters*country(code[0]-'A') + country(code[1]-'A')
}

// countryNames holds all codes one after another, so that a code is a part of it and needs no memory.
func countryNames() string {
	b := make([]byte, 0, 2*(codes-1))
	for i := range codes - 1 {
		b = append(b, byte('A'+i/letters), byte('A'+i%letters))
	}
	return string(b)
}

// CountryTable says in which country addresses are. It is filled by Append, and immutable from then on: a lookup takes at most one
// comparison for each bit of the number of its ranges, and touches nothing but memory.
//
// A range reaches to where the next one begins; those between networks have country 0.
type CountryTable struct {
	from4  []uint32
	of4    []country
	begin4 [1<<16 + 1]uint32 // by the upper half of an address: the first range that begins there or behind

	from6 []address6
	of6   []country
	each6 []address6 // the first of each stride of ranges, which are few enough for the cache

	known [codes]bool // countries that have a network

	open4, open6 bool // the last range has no successor yet, and reaches to last4, last6
	last4        uint32
	last6        address6
}

// stride is how many ranges of IPv6 stand together: all of them in 1 KiB.
const stride = 64

// address6 is an IPv6 address as a number.
type address6 struct{ high, low uint64 }

func (a address6) less(b address6) bool { return a.high < b.high || a.high == b.high && a.low < b.low }

func (a address6) next() address6 {
	if a.low++; a.low == 0 {
		a.high++
	}
	return a
}

func number6(a netip.Addr) address6 {
	b := a.As16()
	return address6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func number4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// NewCountryTable gives an empty table.
func NewCountryTable() *CountryTable { return &CountryTable{} }

var errOrder = errors.New("its networks overlap, or are not in order")

// Append enters a network, which lies behind all of its family that are there. A code that is not two capitals says nothing.
func (t *CountryTable) Append(p netip.Prefix, code string) error {
	p = p.Masked()
	if !p.IsValid() {
		return errOrder
	}
	c := countryOf(code)
	t.known[c] = true
	if p.Addr().Is4() {
		from := number4(p.Addr())
		return t.append4(from, from|uint32(1<<(32-p.Bits())-1), c)
	}
	from := number6(p.Addr())
	to := from
	switch rest := 128 - p.Bits(); {
	case rest >= 64:
		to = address6{from.high | (1<<(rest-64) - 1), ^uint64(0)}
	default:
		to.low |= 1<<rest - 1
	}
	return t.append6(from, to, c)
}

func (t *CountryTable) append4(from, to uint32, c country) error {
	n := len(t.of4)
	if t.open4 && from <= t.last4 {
		return errOrder
	}
	if before := uint32(0); t.open4 || from > 0 {
		if t.open4 {
			before = t.last4 + 1
		}
		if before < from && (n == 0 || t.of4[n-1] != 0) {
			t.from4, t.of4 = append(t.from4, before), append(t.of4, 0)
			n++
		}
	}
	if n == 0 || t.of4[n-1] != c {
		t.from4, t.of4 = append(t.from4, from), append(t.of4, c)
	}
	t.last4, t.open4 = to, true
	return nil
}

func (t *CountryTable) append6(from, to address6, c country) error {
	n := len(t.of6)
	if t.open6 && !t.last6.less(from) {
		return errOrder
	}
	before := address6{}
	if t.open6 {
		before = t.last6.next()
	}
	if before.less(from) && (n == 0 || t.of6[n-1] != 0) {
		t.from6, t.of6 = append(t.from6, before), append(t.of6, 0)
		n++
	}
	if n == 0 || t.of6[n-1] != c {
		t.from6, t.of6 = append(t.from6, from), append(t.of6, c)
	}
	t.last6, t.open6 = to, true
	return nil
}

// Close ends the filling. Nothing may be entered afterwards.
func (t *CountryTable) Close() {
	if t.open4 && t.last4 != ^uint32(0) {
		t.from4, t.of4 = append(t.from4, t.last4+1), append(t.of4, 0)
	}
	if end := t.last6.next(); t.open6 && end != (address6{}) {
		t.from6, t.of6 = append(t.from6, end), append(t.of6, 0)
	}
	for i := 0; i < len(t.from6); i += stride {
		t.each6 = append(t.each6, t.from6[i])
	}
	i := 0
	for half := range t.begin4 {
		for i < len(t.from4) && int(t.from4[i]>>16) < half {
			i++
		}
		t.begin4[half] = uint32(i)
	}
}

// Len is the number of ranges, those of no country among them.
func (t *CountryTable) Len() int { return len(t.of4) + len(t.of6) }

// Has says whether a network is in the country of a code.
func (t *CountryTable) Has(code string) bool {
	c := countryOf(code)
	return c > 0 && t.known[c]
}

// find gives the country of an address.
func (t *CountryTable) find(a netip.Addr) country {
	switch a = a.Unmap(); {
	case a.Is4():
		return t.find4(number4(a))
	case a.Is6():
		return t.find6(number6(a))
	}
	return 0
}

func (t *CountryTable) find4(a uint32) country {
	low, high := int(t.begin4[a>>16]), int(t.begin4[a>>16+1])
	for low < high {
		if middle := (low + high) / 2; t.from4[middle] <= a {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low == 0 {
		return 0
	}
	return t.of4[low-1]
}

func (t *CountryTable) find6(a address6) country {
	group := behind(t.each6, a) // of which the last may hold a
	if group == 0 {
		return 0
	}
	first := (group - 1) * stride
	return t.of6[first+behind(t.from6[first:min(first+stride, len(t.from6))], a)-1]
}

// behind is how many of a sorted list are at most a.
func behind(list []address6, a address6) int {
	low, high := 0, len(list)
	for low < high {
		if middle := (low + high) / 2; !a.less(list[middle]) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}
