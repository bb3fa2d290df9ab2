package http2

import (
	"encoding/binary"
	"slices"
)

// huffmanLengths are the lengths in bits of the codes of RFC 7541, appendix B. The code is canonical: codes of one
// length follow one another in the order of their symbols, so that the lengths say all.
var huffmanLengths = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

const (
	huffmanMin    = 5  // bits of the shortest code
	huffmanMax    = 30 // of the longest; all ones is the end of the string, which must not be there
	huffmanWindow = 11 // bits that are looked up together: one or two symbols
)

// huffmanPair is what a window of bits starts with: two symbols, their bits together, and those of the first. Of one
// symbol alone both counts are equal; 0 stands for a code that is longer than the window.
type huffmanPair struct{ symbol, second, first, total uint8 }

// huffman holds the code in both directions.
var huffman = func() (t struct {
	codes   [256]uint32
	pairs   [1 << huffmanWindow]huffmanPair
	symbols [256]uint8             // in the order of their codes
	bounds  [huffmanMax + 1]uint32 // the first code after those of a length, its bits at the top of the word
	offsets [huffmanMax + 1]uint32 // index into symbols is this plus a code
}) {
	code, n := uint32(0), uint32(0)
	for length := huffmanMin; length <= huffmanMax; length++ {
		t.offsets[length] = n - code
		for s := range t.codes {
			if int(huffmanLengths[s]) == length {
				t.codes[s], t.symbols[n] = code, uint8(s)
				code++
				n++
			}
		}
		t.bounds[length] = code << (32 - length)
		code <<= 1
	}
	one := func(bits uint32, room int) (symbol, length uint8) { // bits at the top of the word
		for length := huffmanMin; length <= room; length++ {
			if bits < t.bounds[length] {
				return t.symbols[t.offsets[length]+bits>>(32-length)], uint8(length)
			}
		}
		return 0, 0
	}
	for i := range t.pairs {
		bits := uint32(i) << (32 - huffmanWindow)
		p := &t.pairs[i]
		p.symbol, p.first = one(bits, huffmanWindow)
		second, length := one(bits<<p.first, huffmanWindow-int(p.first))
		if p.total = p.first; p.first > 0 && length > 0 {
			p.second, p.total = second, p.first+length
		}
	}
	return t
}()

// longSymbol decodes a code that is longer than the window; bits are at the top of the word. length is above huffmanMax
// for what is no symbol.
func longSymbol(bits uint32) (symbol byte, length int) {
	for length = huffmanWindow + 1; length <= huffmanMax; length++ {
		if bits < huffman.bounds[length] {
			return huffman.symbols[huffman.offsets[length]+bits>>(32-length)], length
		}
	}
	return 0, length
}

// decodeHuffman appends the string that b encodes; false: it encodes none (RFC 7541, 5.2). At most 8/5 of b's length
// are appended.
func decodeHuffman(dst, b []byte) ([]byte, bool) {
	k := len(dst)
	dst = slices.Grow(dst, len(b)*8/huffmanMin+2) // two are written at a time
	out := dst[:cap(dst)]
	bits, n := uint64(0), 0 // n bits at the top of the word, zeros after them
	for {
		if n < 32 {
			if len(b) < 4 {
				break
			}
			bits |= uint64(binary.BigEndian.Uint32(b)) << (32 - n)
			n += 32
			b = b[4:]
		}
		p := huffman.pairs[bits>>(64-huffmanWindow)]
		if p.total == 0 {
			symbol, length := longSymbol(uint32(bits >> 32))
			if length > huffmanMax {
				return dst, false
			}
			out[k] = symbol
			k++
			bits <<= length
			n -= length
			continue
		}
		out[k], out[k+1] = p.symbol, p.second
		k++
		if p.total != p.first {
			k++
		}
		bits <<= p.total
		n -= int(p.total)
	}
	for ; len(b) > 0; b = b[1:] {
		bits |= uint64(b[0]) << (56 - n)
		n += 8
	}
	bits |= 1<<(64-n) - 1
	for bits != 1<<64-1 || n >= 8 { // the rest is no padding
		p := huffman.pairs[bits>>(64-huffmanWindow)]
		symbol, length := p.symbol, int(p.first)
		if length == 0 {
			symbol, length = longSymbol(uint32(bits >> 32))
		}
		if length > n || length > huffmanMax {
			return dst, false
		}
		out[k] = symbol
		k++
		bits = bits<<length | (1<<length - 1)
		n -= length
	}
	return out[:k], true
}

// huffmanSize is the number of bytes that s takes when it is encoded.
func huffmanSize(s []byte) int {
	bits := 7
	for _, c := range s {
		bits += int(huffmanLengths[c])
	}
	return bits >> 3
}

// appendHuffman appends the code of s.
func appendHuffman(dst, s []byte) []byte {
	bits, n := uint64(0), 0 // n bits at the bottom of the word
	for _, c := range s {
		bits = bits<<huffmanLengths[c] | uint64(huffman.codes[c])
		if n += int(huffmanLengths[c]); n >= 32 {
			n -= 32
			dst = binary.BigEndian.AppendUint32(dst, uint32(bits>>n))
		}
	}
	for ; n >= 8; n -= 8 {
		dst = append(dst, byte(bits>>(n-8)))
	}
	if n > 0 {
		dst = append(dst, byte(bits<<(8-n))|byte(1<<(8-n)-1))
	}
	return dst
}
