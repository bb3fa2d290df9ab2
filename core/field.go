package core

import (
	"encoding/binary"
	"math/bits"
)

// FieldID is a small number for a field name that the gateway itself reads or writes. Comparing two bytes takes the
// place of comparing names on the hot path; FieldOther stands for all the names that nobody here asks for.
type FieldID uint8

// The known names. The order is free; fieldNames holds their spelling.
const (
	FieldOther FieldID = iota
	FieldAccept
	FieldAge
	FieldAllow
	FieldAuthorization
	FieldCacheControl
	FieldConnection
	FieldContentEncoding
	FieldContentLength
	FieldContentType
	FieldCookie
	FieldDate
	FieldETag
	FieldExpect
	FieldForwarded
	FieldHost
	FieldKeepAlive
	FieldLocation
	FieldOrigin
	FieldProxyAuthenticate
	FieldProxyAuthorization
	FieldProxyConnection
	FieldReferer
	FieldRetryAfter
	FieldServer
	FieldSetCookie
	FieldTE
	FieldTrailer
	FieldTransferEncoding
	FieldUpgrade
	FieldUserAgent
	FieldVary
	FieldVia
	FieldXConsumerName
	FieldXForwardedFor
	FieldXForwardedHost
	FieldXForwardedProto
	FieldXRealIP
	FieldXRequestID
	fieldCount
)

// fieldNames is the spelling in which the gateway sends a known name.
var fieldNames = [fieldCount]string{
	FieldAccept:             "Accept",
	FieldAge:                "Age",
	FieldAllow:              "Allow",
	FieldAuthorization:      "Authorization",
	FieldCacheControl:       "Cache-Control",
	FieldConnection:         "Connection",
	FieldContentEncoding:    "Content-Encoding",
	FieldContentLength:      "Content-Length",
	FieldContentType:        "Content-Type",
	FieldCookie:             "Cookie",
	FieldDate:               "Date",
	FieldETag:               "ETag",
	FieldExpect:             "Expect",
	FieldForwarded:          "Forwarded",
	FieldHost:               "Host",
	FieldKeepAlive:          "Keep-Alive",
	FieldLocation:           "Location",
	FieldOrigin:             "Origin",
	FieldProxyAuthenticate:  "Proxy-Authenticate",
	FieldProxyAuthorization: "Proxy-Authorization",
	FieldProxyConnection:    "Proxy-Connection",
	FieldReferer:            "Referer",
	FieldRetryAfter:         "Retry-After",
	FieldServer:             "Server",
	FieldSetCookie:          "Set-Cookie",
	FieldTE:                 "TE",
	FieldTrailer:            "Trailer",
	FieldTransferEncoding:   "Transfer-Encoding",
	FieldUpgrade:            "Upgrade",
	FieldUserAgent:          "User-Agent",
	FieldVary:               "Vary",
	FieldVia:                "Via",
	FieldXConsumerName:      "X-Consumer-Name",
	FieldXForwardedFor:      "X-Forwarded-For",
	FieldXForwardedHost:     "X-Forwarded-Host",
	FieldXForwardedProto:    "X-Forwarded-Proto",
	FieldXRealIP:            "X-Real-IP",
	FieldXRequestID:         "X-Request-ID",
}

// String is the name as the gateway sends it.
func (id FieldID) String() string { return fieldNames[id] }

// LookupField gives the id of a name in any case, FieldOther when it is none of the known. A name that is found is a
// token.
func LookupField(name []byte) FieldID {
	if len(name) < minFieldName || len(name) > maxFieldName {
		return FieldOther
	}
	w := fieldWords(name)
	id := fieldHash.slots[w.hash(fieldHash.multiplier)]
	known := &fieldHash.known[id]
	if int(known.length) != len(name) ||
		((w.first|known.fold.first)^known.words.first)|((w.middle|known.fold.middle)^known.words.middle)|((w.last|known.fold.last)^known.words.last) != 0 {
		return FieldOther
	}
	return id
}

// Lengths of the known names. Three words cover the longest.
const (
	minFieldName = len("TE")
	maxFieldName = 24
)

// nameWords is a name's first eight bytes, the eight after them, and its last eight, overlapping as need be; of a
// shorter name, all its bytes in the first word, some of them twice.
type nameWords struct{ first, middle, last uint64 }

func fieldWords(name []byte) nameWords {
	n := len(name)
	switch {
	case n > 16:
		return nameWords{word(name), word(name[8:]), word(name[n-8:])}
	case n >= 8:
		return nameWords{word(name), 0, word(name[n-8:])}
	case n >= 4:
		first, last := binary.LittleEndian.Uint32(name), binary.LittleEndian.Uint32(name[n-4:])
		return nameWords{first: uint64(first) | uint64(last)<<32}
	}
	return nameWords{first: uint64(name[0]) | uint64(name[1])<<8 | uint64(name[n-1])<<16}
}

func word(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

// hash does not distinguish cases, nor some other bytes; the comparison does.
func (w nameWords) hash(multiplier uint64) uint8 {
	const fold = 0x2020202020202020
	return uint8(((w.first | fold) ^ bits.RotateLeft64(w.last|fold, 23)) * multiplier >> 56)
}

// knownName is a name in lower case, with the bits that separate the cases of its letters, and of its letters only.
type knownName struct {
	words, fold nameWords
	length      uint8
}

// fieldHash is a perfect hash of the known names: for its multiplier each has a slot of its own.
var fieldHash = func() (t struct {
	multiplier uint64
	slots      [256]FieldID
	known      [fieldCount]knownName
}) {
	for id := FieldOther + 1; id < fieldCount; id++ {
		name, fold := []byte(fieldNames[id]), make([]byte, len(fieldNames[id]))
		for i, c := range name {
			if name[i] = lower[c]; 'a' <= name[i] && name[i] <= 'z' {
				fold[i] = 0x20
			}
		}
		if len(name) < minFieldName || len(name) > maxFieldName {
			panic("BUG: length of a known field name")
		}
		t.known[id] = knownName{words: fieldWords(name), fold: fieldWords(fold), length: uint8(len(name))}
	}
search:
	for t.multiplier = 0x9e3779b97f4a7c15; ; t.multiplier += 0x632be59bd9b4e01a {
		t.slots = [256]FieldID{}
		for id := FieldOther + 1; id < fieldCount; id++ {
			slot := &t.slots[t.known[id].words.hash(t.multiplier)]
			if *slot != FieldOther {
				continue search
			}
			*slot = id
		}
		return t
	}
}()

// EqualFold compares ASCII names and tokens without regard to case (RFC 9110, 5.1).
func EqualFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if lower[b[i]] != lower[s[i]] {
			return false
		}
	}
	return true
}

var lower = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if 'A' <= i && i <= 'Z' {
			t[i] += 'a' - 'A'
		}
	}
	return t
}()
