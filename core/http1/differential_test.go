package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// FuzzDifferential: what we accept, net/http reads in the same way, from the first byte of the head to the last of the
// body. It accepts more, of course.
func FuzzDifferential(f *testing.F) {
	for _, s := range requestSeeds {
		f.Add([]byte(s), false)
	}
	for _, s := range responseSeeds {
		f.Add([]byte(s), true)
	}
	for _, s := range chunkSeeds {
		f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+s), false)
		f.Add([]byte(responseWith("Transfer-Encoding: chunked")+s), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, response bool) {
		if len(in) > 32<<10 { // so that the reader below holds all of it
			return
		}
		if response {
			compareResponse(t, in)
		} else {
			compareRequest(t, in)
		}
	})
}

func compareRequest(t *testing.T, in []byte) {
	var m core.Message
	m.Reset()
	n, err := ParseRequest(&m, in, &wideLimits)
	if n == 0 || err != nil {
		return
	}
	m.Adopt(in[:n])
	if m.NormalizeTarget(false) != nil {
		return
	}
	rd := bufio.NewReaderSize(bytes.NewReader(bytes.TrimPrefix(in, []byte("\r\n"))), 64<<10)
	r, failure := http.ReadRequest(rd)
	if failure != nil {
		if m.Chunked && strings.Contains(failure.Error(), "bad trailer key") {
			return // an announcement that we need not believe: such a trailer is refused when it comes
		}
		t.Fatalf("%q: net/http: %v", in, failure)
	}
	if r.Method != string(m.MethodBytes()) || r.RequestURI != string(m.Bytes(m.Target)) || r.Host != string(m.Host()) ||
		r.ProtoAtLeast(1, 1) == m.HTTP10 || r.Close != m.Close {
		t.Fatalf("%q: %s, net/http %q %q %q close=%v", in, describe(&m), r.Method, r.RequestURI, r.Host, r.Close)
	}
	compareFields(t, in, &m, r.Header)
	if want := max(m.ContentLength, 0); !m.Chunked && r.ContentLength != want || m.Chunked != (len(r.TransferEncoding) == 1) {
		t.Fatalf("%q: length %d, net/http %d", in, want, r.ContentLength)
	}
	compareBody(t, in[n:], &m, rd, r.Body, &r.Trailer)
}

func compareResponse(t *testing.T, in []byte) {
	var m core.Message
	m.Reset()
	n, err := ParseResponse(&m, in, &wideLimits)
	if n == 0 || err != nil {
		return
	}
	m.Adopt(in[:n])
	rd := bufio.NewReaderSize(bytes.NewReader(in), 64<<10)
	r, failure := http.ReadResponse(rd, nil)
	if failure != nil {
		if m.Chunked && strings.Contains(failure.Error(), "bad trailer key") {
			return
		}
		t.Fatalf("%q: net/http: %v", in, failure)
	}
	if r.StatusCode != m.Status || r.ProtoAtLeast(1, 1) == m.HTTP10 {
		t.Fatalf("%q: status %d, net/http %d", in, m.Status, r.StatusCode)
	}
	if m.Status == 204 || m.Status < 200 {
		r.Header.Del("Content-Length") // which we have removed
	}
	compareFields(t, in, &m, r.Header)
	switch {
	case m.Status < 200 || m.Status == 204 || m.Status == 304:
		return
	case m.ContentLength != r.ContentLength || m.Chunked != (len(r.TransferEncoding) == 1):
		t.Fatalf("%q: length %d, net/http %d", in, m.ContentLength, r.ContentLength)
	case m.Chunked || m.ContentLength >= 0:
		if r.Close != m.Close {
			t.Fatalf("%q: close %v, net/http %v", in, m.Close, r.Close)
		}
		compareBody(t, in[n:], &m, rd, r.Body, &r.Trailer)
	}
}

// compareFields takes into account what net/http takes out of a header, or adds to it, and what we drop.
func compareFields(t *testing.T, in []byte, m *core.Message, theirs http.Header) {
	ours := http.Header{}
	m.All(func(id core.FieldID, name, value []byte) bool {
		key := textproto.CanonicalMIMEHeaderKey(string(name))
		if id == core.FieldHost && m.Status == 0 || id == core.FieldTransferEncoding || id == core.FieldTrailer {
			return true
		}
		ours[key] = append(ours[key], string(value))
		return true
	})
	theirs.Del("Trailer")
	if v := ours["Pragma"]; len(v) > 0 && v[0] == "no-cache" && ours["Cache-Control"] == nil {
		theirs.Del("Cache-Control")
	}
	for name := range theirs {
		if drop := core.Resembles([]byte(name)) == core.ResemblesAsserted; drop && m.Status == 0 && core.LookupField([]byte(name)) == core.FieldOther {
			delete(theirs, name)
		}
	}
	if !reflect.DeepEqual(ours, theirs) {
		t.Fatalf("%q: fields %q, net/http %q", in, ours, theirs)
	}
}

func compareBody(t *testing.T, in []byte, m *core.Message, rd *bufio.Reader, body io.Reader, trailer *http.Header) {
	theirs, failure := io.ReadAll(body)
	var ours []byte
	n, done := int(min(max(m.ContentLength, 0), int64(len(in)))), m.ContentLength <= int64(len(in))
	ours = in[:n]
	var d ChunkDecoder
	if m.Chunked {
		var err *core.Error
		if ours, n, done, err = decodeSplit(&d, in, nil); err != nil {
			return
		}
	}
	if !done {
		if failure == nil {
			t.Fatalf("%q: incomplete, net/http %q", in, theirs)
		}
		return
	}
	rest, _ := io.ReadAll(rd)
	if failure != nil || !bytes.Equal(ours, theirs) || !bytes.Equal(rest, in[n:]) {
		t.Fatalf("%q: body %q, then %q, net/http %q, then %q, %v", in, ours, in[n:], theirs, rest, failure)
	}
	kept, err := textproto.NewReader(bufio.NewReader(strings.NewReader(string(d.Trailer()) + "\r\n"))).ReadMIMEHeader()
	if err != nil {
		t.Fatalf("%q: trailer %q: %v", in, d.Trailer(), err)
	}
	for name, values := range kept {
		if !reflect.DeepEqual(values, (*trailer)[name]) {
			t.Fatalf("%q: trailer %q, net/http %q", in, kept, *trailer)
		}
	}
}
