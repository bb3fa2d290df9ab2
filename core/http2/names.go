package http2

import (
	"encoding/binary"

	"github.com/sluice-gateway/sluice/core"
)

// knownField is how the encoder writes a known field: its name in lower case, and the index of the name in the static
// table, or 0.
type knownField struct {
	name   []byte
	static uint8
}

// knownFields are indexed by FieldID. Host is ":authority". One that is missing is sent like an unknown field.
var knownFields = func() (t [64]knownField) {
	for id := core.FieldOther + 1; id <= core.FieldXRequestID; id++ {
		t[id].name = lower(make([]byte, len(id.String())), []byte(id.String()))
	}
	for i := staticCount; i > 0; i-- { // the first of several is kept
		if id := core.LookupField([]byte(staticFields[i][0])); id != core.FieldOther {
			t[id].static = uint8(i)
		}
	}
	t[core.FieldHost] = knownField{[]byte(":authority"), staticAuthority}
	return t
}()

// staticNames finds the index of names that are not known fields: by a hash that is perfect for the static table.
var staticNames = func() (t struct {
	multiplier uint32
	slots      [256]uint8
}) {
search:
	for t.multiplier = 0x9e3779b1; ; t.multiplier += 2 {
		t.slots = [256]uint8{}
		for i := staticCount; i > 0; i-- {
			name := staticFields[i][0]
			if i < staticCount && staticFields[i+1][0] == name || name[0] == ':' {
				continue
			}
			slot := &t.slots[staticHash(t.multiplier, []byte(name))]
			if *slot != 0 {
				continue search
			}
			*slot = uint8(i)
		}
		return t
	}
}()

// staticHash is of the length and the last bytes of a name, which has three at least.
func staticHash(multiplier uint32, name []byte) uint8 {
	n := len(name)
	w := uint32(name[n-1]) | uint32(name[n-2])<<8 | uint32(name[n-3])<<16 | uint32(name[0])<<24
	return uint8((w + uint32(n)*0x85ebca6b) * multiplier >> 24)
}

// lookupStatic gives the index in the static table of a name in lower case, 0 for none.
func lookupStatic(name []byte) uint8 {
	if len(name) < 3 {
		return 0
	}
	i := staticNames.slots[staticHash(staticNames.multiplier, name)]
	if staticFields[i][0] != string(name) {
		return 0
	}
	return i
}

// lower writes name in lower case into dst, which is as long, and gives dst. Eight bytes are looked at together: the top bit
// of each byte of a token is free to say that it is a capital letter.
func lower(dst, name []byte) []byte {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(name); i += 8 {
		w := binary.LittleEndian.Uint64(name[i:])
		capital := (w + (0x80-'A')*ones) &^ (w + (0x80-'Z'-1)*ones) & tops
		binary.LittleEndian.PutUint64(dst[i:], w|capital>>2)
	}
	for ; i < len(name); i++ {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		dst[i] = c
	}
	return dst
}
