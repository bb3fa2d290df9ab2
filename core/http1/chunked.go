package http1

import "github.com/sluice-gateway/sluice/core"

const (
	maxSizeDigits     = 15      // of a chunk size: cannot overflow
	maxExtensionBytes = 4 << 10 // in the whole body: nobody knows one, so that more of them are an attack
)

// ChunkDecoder undoes the chunked transfer coding (RFC 9112, 7.1) of one body at a time. The zero value is ready.
// Bytes may be split anywhere between calls; nothing but trailer lines is kept.
type ChunkDecoder struct {
	Response bool // the body is the upstream's, and so is the blame; Reset leaves it

	state      chunkState
	digits     int    // of the size being read
	left       uint64 // bytes of the chunk to come
	extensions int    // bytes of extensions so far
	trailer    trailer
}

type chunkState uint8

const (
	chunkSize           chunkState = iota // zero value: before or inside the size
	chunkSizeBlank                        // after it: only an extension may follow
	chunkExtension                        // after ";"
	chunkExtensionName                    // inside a name
	chunkExtensionBlank                   // after a name
	chunkExtensionEqual                   // after "="
	chunkExtensionValue                   // inside a token
	chunkExtensionQuote                   // inside a quoted string
	chunkExtensionPair                    // after a backslash in it
	chunkExtensionEnd                     // after the closing quote
	chunkExtensionNext                    // blank after a value
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
	chunkDone
)

// Reset prepares d for the next body and keeps its memory.
func (d *ChunkDecoder) Reset() {
	t := d.trailer
	t.reset()
	*d = ChunkDecoder{Response: d.Response, trailer: t}
}

// Decode reads b in place. Afterwards b[start:end] is the data of all the chunks in it, moved together; consumed bytes
// were read, all of b unless the body is done: what follows belongs to the next message. done says that the last chunk
// and the trailer section have been read. After an error d must be Reset and the connection closed.
func (d *ChunkDecoder) Decode(b []byte) (start, end, consumed int, done bool, err *core.Error) {
	i := 0
	for i < len(b) && d.state != chunkDone {
		f := faultNone
		switch d.state {
		case chunkData:
			n := int(min(uint64(len(b)-i), d.left))
			if start == end {
				start, end = i, i+n
			} else {
				end += copy(b[end:], b[i:i+n])
			}
			i += n
			if d.left -= uint64(n); d.left == 0 {
				d.state = chunkDataCR
			}
		case chunkTrailer:
			var n int
			var last bool
			n, last, f = d.trailer.read(b[i:])
			i += n
			if last {
				d.state = chunkDone
			}
		default:
			f = d.step(b[i])
			i++
		}
		if f != faultNone {
			if d.Response {
				return 0, 0, i, false, responseErrors[f]
			}
			return 0, 0, i, false, requestErrors[f]
		}
	}
	return start, end, i, d.state == chunkDone, nil
}

// atSize says that the next byte is the first of a chunk's size.
func (d *ChunkDecoder) atSize() bool { return d.state == chunkSize && d.digits == 0 }

// Trailer is the trailer section once the body is done: checked lines, each with its CRLF, without those that must not
// be merged into a message. It is valid until Reset.
func (d *ChunkDecoder) Trailer() []byte { return d.trailer.lines }

// step takes one byte of the framing around the data.
func (d *ChunkDecoder) step(c byte) fault {
	switch d.state {
	case chunkSize:
		return d.size(c)
	case chunkSizeLF:
		if c != '\n' {
			return faultChunkSize
		}
		d.state, d.digits = chunkData, 0
		if d.left == 0 {
			d.state = chunkTrailer
		}
	case chunkDataCR:
		if c != '\r' {
			return faultChunkEnd
		}
		d.state = chunkDataLF
	case chunkDataLF:
		if c != '\n' {
			return faultChunkEnd
		}
		d.state = chunkSize
	default:
		return d.extension(c)
	}
	return faultNone
}

func (d *ChunkDecoder) size(c byte) fault {
	v := hexValue[c]
	switch {
	case v != noHex:
		if d.digits++; d.digits > maxSizeDigits {
			return faultChunkSize
		}
		d.left = d.left<<4 | uint64(v)
	case d.digits == 0:
		return faultChunkSize
	case c == '\r':
		d.state = chunkSizeLF
	case c == ';':
		d.state = chunkExtension
	case isBlank(c):
		d.state = chunkSizeBlank
	default:
		return faultChunkSize
	}
	return faultNone
}

// extension reads *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ) (RFC 9112, 7.1.1) up to the CR. White
// space that nothing follows is no part of it.
func (d *ChunkDecoder) extension(c byte) fault {
	if d.extensions++; d.extensions > maxExtensionBytes {
		return faultChunkExtensions
	}
	token := core.TokenClass(c) != 0
	switch s := d.state; {
	case s == chunkExtensionQuote:
		switch {
		case c == '"':
			d.state = chunkExtensionEnd
		case c == '\\':
			d.state = chunkExtensionPair
		case isControl(c):
			return faultChunkExtension
		}
	case s == chunkExtensionPair:
		if isControl(c) {
			return faultChunkExtension
		}
		d.state = chunkExtensionQuote
	case token && (s == chunkExtension || s == chunkExtensionName):
		d.state = chunkExtensionName
	case token && (s == chunkExtensionEqual || s == chunkExtensionValue):
		d.state = chunkExtensionValue
	case c == '"' && s == chunkExtensionEqual:
		d.state = chunkExtensionQuote
	case c == '=' && (s == chunkExtensionName || s == chunkExtensionBlank):
		d.state = chunkExtensionEqual
	case c == ';' && s != chunkExtension && s != chunkExtensionEqual:
		d.state = chunkExtension
	case c == '\r' && (s == chunkExtensionName || s == chunkExtensionValue || s == chunkExtensionEnd):
		d.state = chunkSizeLF
	case isBlank(c):
		switch s {
		case chunkExtensionName:
			d.state = chunkExtensionBlank
		case chunkExtensionValue, chunkExtensionEnd:
			d.state = chunkExtensionNext
		}
	default:
		return faultChunkExtension
	}
	return faultNone
}

func isControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

const noHex = 0xff

var hexValue = func() (t [256]uint8) {
	for i := range t {
		t[i] = noHex
	}
	for i := range 16 {
		t["0123456789abcdef"[i]], t["0123456789ABCDEF"[i]] = uint8(i), uint8(i)
	}
	return t
}()
