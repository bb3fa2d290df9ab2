package grpcweb

import "github.com/sluice-gateway/sluice/core"

// decoder takes base64 off a request body, piece by piece and in place. Each of the messages in it may be padded by itself.
type decoder struct {
	body  core.Body
	group [4]byte // the letters of a group that is not whole yet
	have  int
	pads  int // "=" at the end of it
}

var errBase64 = &core.Error{Status: 400, Reason: "bad_request", Detail: "malformed base64 in gRPC-Web text"}

// Ready says whether bytes are at hand.
func (d *decoder) Ready() bool { return d.body.Ready() }

// Release gives the last piece back.
func (d *decoder) Release() { d.body.Release() }

// Next gives the next piece, decoded. It is never longer than what it was, since groups become shorter; what was held of a group
// finds room before the piece.
func (d *decoder) Next() (core.Piece, error) {
	p, err := d.body.Next()
	if err != nil {
		return p, err
	}
	to := p.Start - 3 // what is written stays behind what is read
	out := p.Buf[to:to]
	for _, c := range p.Bytes() {
		switch v := sextet[c]; {
		case c == '=' && d.have >= 2:
			d.pads++
		case v == noSextet || d.pads > 0:
			return p, errBase64
		default:
			d.group[d.have] = v
		}
		if d.have++; d.have < 4 {
			continue
		}
		g := d.group
		switch d.pads {
		case 0:
			out = append(out, g[0]<<2|g[1]>>4, g[1]<<4|g[2]>>2, g[2]<<6|g[3])
		case 1:
			if g[2]&3 != 0 { // bits that stand for nothing (RFC 4648, 3.5)
				return p, errBase64
			}
			out = append(out, g[0]<<2|g[1]>>4, g[1]<<4|g[2]>>2)
		default:
			if g[1]&15 != 0 {
				return p, errBase64
			}
			out = append(out, g[0]<<2|g[1]>>4)
		}
		d.have, d.pads = 0, 0
	}
	if p.Last && d.have > 0 {
		return p, errBase64
	}
	p.Start, p.End = to, to+len(out)
	return p, nil
}

const noSextet = 0xff

var sextet = func() (t [256]byte) {
	for i := range t {
		t[i] = noSextet
	}
	for i, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
		t[c] = byte(i)
	}
	return t
}()
