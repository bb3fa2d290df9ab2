package grpcweb

import (
	"bytes"
	"encoding/base64"
	"io"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// pieces is a body that comes in pieces of given sizes, again and again.
type pieces struct {
	text  []byte
	sizes []byte
	next  int
	buf   [256]byte
}

func (p *pieces) Ready() bool { return true }
func (p *pieces) Release()    {}

func (p *pieces) Next() (core.Piece, error) {
	n := 1
	if len(p.sizes) > 0 {
		n = int(p.sizes[p.next%len(p.sizes)]) % 97
		p.next++
		if p.next > 1000 { // all of them may be 0
			n = 1
		}
	}
	n = min(n, len(p.text))
	copy(p.buf[core.PieceRoom:], p.text[:n])
	p.text = p.text[n:]
	return core.Piece{Buf: p.buf[:], Start: core.PieceRoom, End: core.PieceRoom + n, Last: len(p.text) == 0}, nil
}

// drain reads a body to its end.
func drain(b core.Body) (all []byte, err error) {
	for {
		p, err := b.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if all = append(all, p.Bytes()...); p.Last {
			return all, nil
		}
	}
}

// FuzzDecoder gives text in any pieces: what is valid base64, group after group with or without padding, comes out as the
// standard library decodes it, and all else is refused.
func FuzzDecoder(f *testing.F) {
	for _, s := range []string{"", "AAAA", "AA==", "AAA=", "AA==AAA=AAAA", "AB==", "A", "====", "AAAAA", "QUJD\n", "-_-_"} {
		f.Add([]byte(s), []byte{3, 1})
	}
	f.Fuzz(func(t *testing.T, text, sizes []byte) {
		var want []byte
		valid := len(text)%4 == 0
		for rest := text; valid && len(rest) > 0; rest = rest[4:] {
			p, err := base64.StdEncoding.Strict().DecodeString(string(rest[:4]))
			if valid = err == nil && !bytes.ContainsAny(rest[:4], "\r\n"); valid {
				want = append(want, p...)
			}
		}
		got, err := drain(&decoder{body: &pieces{text: text, sizes: sizes}})
		if (err == nil) != valid || valid && !bytes.Equal(got, want) {
			t.Errorf("%q in pieces of %v: got %q, %v; want %q, valid %v", text, sizes, got, err, want, valid)
		}
	})
}
