package server

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"
)

// webGate is a gateway that lets browsers call upstream.
func webGate(t *testing.T, upstream string) *gate {
	t.Helper()
	text := strings.Replace(h2Config(upstream, "[h1, h2c]"), `"] } }`, `"], protocol: h2c } }`, 1)
	return newGate(t, strings.Replace(text, `to: a }`, `to: a, use: [web] }`, 1)+"policies: { web: { grpc_web: on } }\n")
}

// webFrame puts a message, or trailers, into the frame that gRPC-Web has for it.
func webFrame(flag byte, p []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(p)))
	return append(b, p...)
}

// webAnswer is an answer taken apart.
type webAnswer struct {
	kind     string
	messages [][]byte
	trailers map[string]string // of the body's last frame, or of the head
}

// callWeb makes a call as a browser does.
func callWeb(client *http.Client, url, method string, text bool, body io.Reader) (*webAnswer, error) {
	kind := "application/grpc-web+proto"
	if text {
		kind = "application/grpc-web-text+proto"
	}
	req, err := http.NewRequest("POST", url+method, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("X-Grpc-Web", "1")
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != 200 || len(res.Trailer) > 0 {
		return nil, fmt.Errorf("%s, trailers %v", res.Status, res.Trailer)
	}
	a := &webAnswer{kind: res.Header.Get("Content-Type"), trailers: map[string]string{}}
	for _, name := range []string{"Grpc-Status", "Grpc-Message"} {
		if v := res.Header.Get(name); v != "" {
			a.trailers[strings.ToLower(name)] = v
		}
	}
	if text {
		var plain []byte
		for len(raw) > 0 { // as a browser decodes it: a piece ends with its padding
			n, stop := 0, false
			for ; n+4 <= len(raw) && !stop; n += 4 {
				stop = raw[n+3] == '='
			}
			p, err := base64.StdEncoding.DecodeString(string(raw[:n]))
			if err != nil || n == 0 {
				return nil, fmt.Errorf("%q: %v", raw, err)
			}
			plain, raw = append(plain, p...), raw[n:]
		}
		raw = plain
	}
	for len(raw) > 0 {
		n := int(binary.BigEndian.Uint32(raw[1:5]))
		p := raw[5 : 5+n]
		if raw[0]&0x80 != 0 {
			if len(raw) > 5+n {
				return nil, fmt.Errorf("%d bytes after the trailers", len(raw)-5-n)
			}
			for line := range strings.SplitSeq(strings.TrimSuffix(string(p), "\r\n"), "\r\n") {
				name, value, _ := strings.Cut(line, ":")
				a.trailers[name] = strings.TrimSpace(value)
			}
			return a, nil
		}
		a.messages = append(a.messages, p)
		raw = raw[5+n:]
	}
	return a, nil
}

func webMessage(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return webFrame(0, b)
}

// TestGRPCWeb calls a real server as browsers do, in both forms, over both protocols, with bodies that come in any pieces.
func TestGRPCWeb(t *testing.T) {
	g := webGate(t, newCallee(t))
	plain := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(plain.CloseIdleConnections)
	const service = "/grpc.testing.TestService/"
	for name, client := range map[string]*http.Client{"h1": plain, "h2c": newH2Client(t)} {
		for _, text := range []bool{false, true} {
			f := func(what, method string, request []byte, sizes []int, status string) {
				t.Helper()
				if text { // two groups, each padded
					half := len(request) / 2
					request = append(base64.StdEncoding.AppendEncode(nil, request[:half]), base64.StdEncoding.AppendEncode(nil, request[half:])...)
				}
				for _, body := range []io.Reader{bytes.NewReader(request), iotest.OneByteReader(bytes.NewReader(request))} {
					a, err := callWeb(client, "http://"+g.addr, method, text, body)
					if err != nil {
						t.Errorf("%s, text %v, %s: %v", name, text, what, err)
						continue
					}
					want := map[bool]string{false: "application/grpc-web+proto", true: "application/grpc-web-text+proto"}[text]
					if status != "" && a.trailers["grpc-status"] != status || !strings.HasPrefix(want, a.kind) {
						t.Errorf("%s, text %v, %s: %q %v, want %s", name, text, what, a.kind, a.trailers, status)
					}
					var got []int
					for _, b := range a.messages {
						m := &testpb.SimpleResponse{} // its payload has the number that other answers' has
						if err := proto.Unmarshal(b, m); err != nil {
							t.Errorf("%s: %v", what, err)
						}
						got = append(got, len(m.GetPayload().GetBody()))
					}
					if fmt.Sprint(got) != fmt.Sprint(sizes) {
						t.Errorf("%s, text %v, %s: messages of %v bytes, want %v", name, text, what, got, sizes)
					}
				}
			}
			unary := func(size int32) []byte {
				return webMessage(t, &testpb.SimpleRequest{ResponseSize: size, Payload: &testpb.Payload{Body: make([]byte, 271)}})
			}
			f("empty", service+"EmptyCall", webMessage(t, &testpb.Empty{}), []int{0}, "0")
			f("small", service+"UnaryCall", unary(10), []int{10}, "0")
			f("large", service+"UnaryCall", unary(314159), []int{314159}, "0")
			f("stream", service+"StreamingOutputCall", webMessage(t, &testpb.StreamingOutputCallRequest{
				ResponseParameters: []*testpb.ResponseParameters{{Size: 1}, {Size: 70_000}, {Size: 2}}}), []int{1, 70_000, 2}, "0")
			f("a status", service+"UnaryCall", webMessage(t, &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Code: 7, Message: "no"}}), nil, "7")
			f("no such method", "/no.Such/Method", webMessage(t, &testpb.Empty{}), nil, "12")
		}
	}
	for _, bad := range []string{"!!!!", "AAA", "AA=A", "=AAA", "AB==", "AAB=", "AAAA="} {
		a, err := callWeb(plain, "http://"+g.addr, service+"EmptyCall", true, strings.NewReader(bad))
		if err != nil || a.trailers["grpc-status"] != "13" {
			t.Errorf("%q: %+v, %v", bad, a, err)
		}
	}
}

// TestGRPCWebOthers shows that the policy leaves alone what is no call.
func TestGRPCWebOthers(t *testing.T) {
	u := newManyUpstream(t)
	g := webGate(t, u.addr)
	client := newH2Client(t)
	res, body, err := exchange(client, "POST", "http://"+g.addr+"/small", strings.NewReader("x"))
	if err != nil || body != smallBody || res.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%v, %q, %v", res.Header, body, err)
	}
	if a, err := callWeb(client, "http://"+g.addr, "/small", true, strings.NewReader("AAAA")); err == nil {
		t.Errorf("the answer of a server of no gRPC was read as %+v", a) // it is passed on as it is, which is no base64
	}
}
