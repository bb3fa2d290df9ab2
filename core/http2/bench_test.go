package http2

import (
	"bytes"
	"testing"

	"github.com/sluice-gateway/sluice/core"
	"golang.org/x/net/http2/hpack"
)

// browserFields are what a browser says, with a path that may differ.
var browserFields = [][2]string{
	{":method", "GET"}, {":path", "/v1/catalog/items/4711?page=2&sort=price"}, {":scheme", "https"}, {":authority", "shop.example.com"},
	{"user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0"},
	{"accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
	{"accept-language", "en-US,en;q=0.5"}, {"accept-encoding", "gzip, deflate, br, zstd"},
	{"referer", "https://shop.example.com/v1/catalog"},
	{"cookie", "session=0123456789abcdef0123456789abcdef; theme=dark; consent=eyJhbGwiOnRydWV9; cart=98765432109876"},
}

// browserBlocks gives n blocks of one connection: all but the first consist of indexes.
func browserBlocks(n int) (blocks [][]byte) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for range n {
		b.Reset()
		for _, f := range browserFields {
			_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		blocks = append(blocks, bytes.Clone(b.Bytes()))
	}
	return blocks
}

func benchmarkDecode(b *testing.B, first, again []byte) {
	d := NewDecoder(4096)
	var m core.Message
	m.Reset()
	if _, err := d.DecodeRequest(&m, first, &wide); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.Reset()
		if _, err := d.DecodeRequest(&m, again, &wide); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeIndexed(b *testing.B) {
	blocks := browserBlocks(2)
	benchmarkDecode(b, blocks[0], blocks[1])
}

// BenchmarkDecodeFresh has a path and a cookie that were never seen, coded by Huffman.
func BenchmarkDecodeFresh(b *testing.B) {
	blocks := browserBlocks(2)
	again := bytes.Clone(blocks[1][:len(blocks[1])-1])
	again[1] = 0x04 // the path, literally, in the place of its index
	again = append(again[:2:2], append(appendShort(nil, []byte(browserFields[1][1])), again[2:]...)...)
	again = appendShort(append(again, 0x0f, 0x11), []byte(browserFields[9][1]))
	benchmarkDecode(b, blocks[0], again)
}

func BenchmarkDecodeIndexedXNet(b *testing.B) {
	blocks := browserBlocks(2)
	d := hpack.NewDecoder(4096, func(hpack.HeaderField) {})
	_, _ = d.Write(blocks[0])
	_ = d.Close()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = d.Write(blocks[1])
		_ = d.Close()
	}
}

var huffmanText = []byte(browserFields[9][1])

func BenchmarkHuffmanDecode(b *testing.B) {
	in := appendHuffman(nil, huffmanText)
	var out []byte
	b.SetBytes(int64(len(huffmanText)))
	for b.Loop() {
		out, _ = decodeHuffman(out[:0], in)
	}
}

func BenchmarkHuffmanEncode(b *testing.B) {
	var out []byte
	b.SetBytes(int64(len(huffmanText)))
	for b.Loop() {
		out = appendShort(out[:0], huffmanText)
	}
}

// responseMessage is an answer of a server of HTTP/1.1, as the gateway passes it on.
func responseMessage() *core.Message {
	m := &core.Message{}
	m.Reset()
	m.Status = 200
	m.ContentLength = 1024
	for _, f := range [][2]string{
		{"Server", "nginx"}, {"Date", "Sat, 21 Nov 2026 04:30:25 GMT"}, {"Content-Type", "application/json"}, {"Content-Length", "1024"},
		{"Last-Modified", "Fri, 20 Nov 2026 10:00:00 GMT"}, {"ETag", `"6a0f-62bd1e9a4c000"`}, {"Accept-Ranges", "bytes"},
		{"X-Powered-By", "Express"}, {"Cache-Control", "public, max-age=60"},
	} {
		m.AddName(f[0], []byte(f[1]))
	}
	return m
}

func BenchmarkEncodeResponse(b *testing.B) {
	e, m := NewEncoder(), responseMessage()
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = e.AppendResponse(out[:0], m)
	}
	b.ReportMetric(float64(len(out)), "wire-B/op")
}

func BenchmarkEncodeRequest(b *testing.B) {
	e, m := NewEncoder(), requestMessage()
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = e.AppendRequest(out[:0], m, "https", nil, nil)
	}
	b.ReportMetric(float64(len(out)), "wire-B/op")
}

func requestMessage() *core.Message {
	m := &core.Message{}
	m.Reset()
	if _, err := NewDecoder(0).DecodeRequest(m, browserBlocks(1)[0], &wide); err != nil {
		panic("BUG: " + err.Error())
	}
	_ = m.NormalizeTarget(false)
	return m
}
