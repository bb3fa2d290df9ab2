package http2

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
	"golang.org/x/net/http2/hpack"
)

var wide = Limits{HeaderBytes: 32 << 10, Headers: 100}

// RFC 7541, appendix C.1.
func TestIntegers(t *testing.T) {
	for _, c := range []struct {
		bits uint
		v    int
		want string
	}{{5, 10, "0a"}, {5, 1337, "1f9a0a"}, {8, 42, "2a"}, {7, 127, "7f00"}, {4, 15, "0f00"}, {6, 1 << 20, "3fc1ff3f"}} {
		got := appendInt(nil, 0, c.bits, c.v)
		if hex.EncodeToString(got) != c.want {
			t.Errorf("%d in %d bits: %x, want %s", c.v, c.bits, got, c.want)
		}
		if v, next := readInt(got, 0, c.bits); v != c.v || next != len(got) {
			t.Errorf("%x: %d, %d", got, v, next)
		}
		for k := 1; k < len(got); k++ {
			if _, next := readInt(got[:k], 0, c.bits); next != 0 {
				t.Errorf("%x: accepted", got[:k])
			}
		}
	}
	if _, next := readInt([]byte{0x7f, 0xff, 0xff, 0xff, 0xff, 0x01}, 0, 7); next != 0 {
		t.Error("an integer of 32 bits was accepted")
	}
}

// dump writes down a table from its newest entry to its oldest.
func dump(t *table) string {
	var s strings.Builder
	for age := 1; age <= t.count(); age++ {
		s.Write(t.line(t.at(age)))
	}
	return strings.ReplaceAll(s.String(), "\r\n", "|")
}

// RFC 7541, appendix C.2 to C.6.
func TestAppendixC(t *testing.T) {
	type block struct{ in, fields, table string }
	const date1, date2 = "Mon, 21 Oct 2013 20:13:21 GMT", "Mon, 21 Oct 2013 20:13:22 GMT"
	requests := []block{
		{"", "GET / http www.example.com", ":authority: www.example.com|"},
		{"", "GET / http www.example.com|cache-control: no-cache", "cache-control: no-cache|:authority: www.example.com|"},
		{"", "GET /index.html https www.example.com|custom-key: custom-value",
			"custom-key: custom-value|cache-control: no-cache|:authority: www.example.com|"},
	}
	responses := []block{
		{"", "302|cache-control: private|date: " + date1 + "|location: https://www.example.com",
			"location: https://www.example.com|date: " + date1 + "|cache-control: private|:status: 302|"},
		{"", "307|cache-control: private|date: " + date1 + "|location: https://www.example.com",
			":status: 307|location: https://www.example.com|date: " + date1 + "|cache-control: private|"},
		{"", "200|cache-control: private|date: " + date2 + "|location: https://www.example.com|content-encoding: gzip|" +
			"set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
			"set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1|content-encoding: gzip|date: " + date2 + "|"},
	}
	for _, c := range []struct {
		name   string
		size   int
		blocks []block
		in     [3]string
	}{
		{"C.3", 4096, requests, [3]string{
			"828684410f7777772e6578616d706c652e636f6d",
			"828684be58086e6f2d6361636865",
			"828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565"}},
		{"C.4", 4096, requests, [3]string{
			"828684418cf1e3c2e5f23a6ba0ab90f4ff",
			"828684be5886a8eb10649cbf",
			"828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"}},
		{"C.5", 256, responses, [3]string{
			"4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d",
			"4803333037c1c0bf",
			"88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31"}},
		{"C.6", 256, responses, [3]string{
			"488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
			"4883640effc1c0bf",
			"88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"}},
	} {
		d := NewDecoder(0)
		d.table.resize(c.size)
		for i, b := range c.blocks {
			in, _ := hex.DecodeString(c.in[i])
			var m core.Message
			m.Reset()
			var got string
			if c.size == 4096 {
				scheme, err := d.DecodeRequest(&m, in, &wide)
				if err != nil {
					t.Fatalf("%s.%d: %v", c.name, i+1, err)
				}
				got = string(m.MethodBytes()) + " " + string(m.Bytes(m.Target)) + " " + scheme + " " + string(m.Host())
				m.Remove(core.FieldHost)
			} else {
				if err := d.DecodeResponse(&m, in, &wide); err != nil {
					t.Fatalf("%s.%d: %v", c.name, i+1, err)
				}
				got = string([]byte{byte('0' + m.Status/100), byte('0' + m.Status/10%10), byte('0' + m.Status%10)})
			}
			if lines := strings.TrimSuffix(string(m.AppendLines(nil)), "\r\n"); lines != "" {
				got += "|" + strings.ReplaceAll(lines, "\r\n", "|")
			}
			if got != b.fields || dump(&d.table) != b.table {
				t.Errorf("%s.%d:\n got %s\n and %s\nwant %s\n and %s", c.name, i+1, got, dump(&d.table), b.fields, b.table)
			}
		}
	}
}

func TestStaticTable(t *testing.T) {
	d := hpack.NewDecoder(4096, nil)
	for i := 1; i <= staticCount; i++ {
		f, err := d.DecodeFull(appendInt(nil, 0x80, 7, i))
		if err != nil || f[0].Name != staticFields[i][0] || f[0].Value != staticFields[i][1] {
			t.Errorf("%d: %v, %v", i, f, err)
		}
		first := i
		for staticFields[first-1][0] == staticFields[i][0] {
			first--
		}
		if got := int(lookupStatic([]byte(staticFields[i][0]))); staticFields[i][0][0] != ':' && got != first {
			t.Errorf("%q: %d, want %d", staticFields[i][0], got, first)
		}
	}
	for _, name := range []string{"x", "", "ab", "hostt", "x-foo", ":path", "tost"} {
		if got := lookupStatic([]byte(name)); got != 0 {
			t.Errorf("%q: %d", name, got)
		}
	}
}

func TestLower(t *testing.T) {
	for c := range 128 {
		for n := range 20 {
			name := bytes.Repeat([]byte{byte(c)}, n)
			if got := lower(make([]byte, n), name); !bytes.Equal(got, bytes.ToLower(name)) {
				t.Fatalf("%q: %q", name, got)
			}
		}
	}
}

func TestHuffman(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, s := range []string{"", "a", "www.example.com", string(all), strings.Repeat("\x00\xff", 40), strings.Repeat("\x0a", 9), strings.Repeat("0", 100)} {
		checkHuffman(t, []byte(s))
	}
	for _, in := range []string{
		"ff", "ffffffff", "3fffffff", // the end of the string, or padding of a byte
		"00", "1f07", // padding that is not all ones
		"07ff",       // padding of more than seven bits
		"fe", "ffea", // a long code that breaks off
	} {
		b, _ := hex.DecodeString(in)
		if out, ok := decodeHuffman(nil, b); ok {
			t.Errorf("%s: decoded to %q", in, out)
		}
	}
}

func checkHuffman(t *testing.T, s []byte) {
	t.Helper()
	want := hpack.AppendHuffmanString(nil, string(s))
	got := appendHuffman([]byte("x"), s)
	if !bytes.Equal(got[1:], want) || huffmanSize(s) != len(want) {
		t.Fatalf("%q: %x, %d bytes, want %x", s, got[1:], huffmanSize(s), want)
	}
	if back, ok := decodeHuffman([]byte("y"), want); !ok || string(back) != "y"+string(s) {
		t.Fatalf("%q: decoded to %q, %v", s, back, ok)
	}
}

// FuzzHuffman: any bytes decode to what x/net says, or are refused by both.
func FuzzHuffman(f *testing.F) {
	f.Add([]byte("\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Add([]byte("\x07\xff\xfe"))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkHuffman(t, in)
		got, ok := decodeHuffman(nil, in)
		want, err := hpack.HuffmanDecodeToString(in)
		if ok != (err == nil) || ok && string(got) != want {
			t.Fatalf("%x: %q, %v; x/net %q, %v", in, got, ok, want, err)
		}
	})
}
