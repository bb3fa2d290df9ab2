package server

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// tool runs a program that others use to speak to servers, and gives all that it writes. Where it is missing, the test is skipped.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(t, name, args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed here", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, path, args...)
	c.WaitDelay = time.Second
	return c
}

// writeCA writes the authority's certificate to a file.
func (a *authority) writeCA() string {
	a.t.Helper()
	name := filepath.Join(a.t.TempDir(), "ca.pem")
	a.must(os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600))
	return name
}

// TestCurl makes curl's requests over HTTP/2, with and without TLS.
func TestCurl(t *testing.T) {
	u := newManyUpstream(t)
	a := newAuthority(t)
	plain, secure := newGate(t, h2Config(u.addr, "[h1, h2c]")), newSecureGate(t, a, u.addr)
	file := filepath.Join(t.TempDir(), "body")
	body, err := io.ReadAll(&pattern{size: mebibyte})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	const report = "\n%{http_version} %{http_code} %{size_upload} %{num_connects}"
	for _, side := range []struct {
		name string
		base string
		args []string
	}{
		{"TLS", "https://a.test", []string{"--http2", "--cacert", a.writeCA(), "--connect-to", "::" + secure.addr}},
		{"prior knowledge", "http://" + plain.addr, []string{"--http2-prior-knowledge"}},
	} {
		t.Run(side.name, func(t *testing.T) {
			f := func(want string, args ...string) {
				t.Helper()
				args = append(append([]string{"-q", "-sS", "--noproxy", "*", "--max-time", "20", "-w", report}, side.args...), args...)
				if got := tool(t, "curl", args...); !regexp.MustCompile("(?s)^" + want + "$").MatchString(got) {
					t.Errorf("curl %q printed\n%s\nwant %s", args, got, want)
				}
			}
			f(smallBody+"\n2 200 0 1", side.base+"/small")
			if side.name == "TLS" { // curl 7.88 cannot use a connection again that began by prior knowledge, with any server
				f(smallBody+"\n2 200 0 1"+smallBody+"\n2 200 0 0", side.base+"/small", side.base+"/small")
			}
			f(`1048576 \[\]`+"\n2 200 1048576 1", "--data-binary", "@"+file, side.base+"/upload?1048576")
			f(`-1 \[chunked\]`+"\n2 200 1048576 1", "-H", "Content-Length:", "-T", file, "-X", "POST", side.base+"/upload?1048576")
			f("HTTP/2 200.*content-length: 1000000\r.*\n2 200 0 1", "-I", side.base+"/download/1000000")
			f("HTTP/2 200.*\r\n\r\nabc.*x-sum: 3\r\n.*2 200 3 1", "-D", "-", "--data-binary", "abc", side.base+"/trailers")
			f("\n2 204 0 1", side.base+"/status/204")
		})
	}
}

// TestH2load makes many requests at once, of which none may fail: over TLS, without, and to an upstream that speaks HTTP/2 too.
func TestH2load(t *testing.T) {
	u := newManyUpstream(t)
	plain, secure := newGate(t, h2Config(u.addr, "[h2c]")), newSecureGate(t, newAuthority(t), u.addr)
	both := newGate(t, strings.Replace(h2Config(u.addr, "[h2c]"), "endpoints:", "protocol: h2c, endpoints:", 1))
	for _, c := range []struct {
		name string
		args []string
	}{
		{"TLS", []string{"--connect-to=" + secure.addr, "https://a.test/small"}},
		{"without TLS", []string{"http://" + plain.addr + "/small"}},
		{"to HTTP/2", []string{"http://" + both.addr + "/small"}},
		{"long answers", []string{"http://" + both.addr + "/download/100000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := u.seen.Load()
			got := tool(t, "h2load", append([]string{"-n", "1000", "-c", "10", "-m", "10"}, c.args...)...)
			for _, want := range []string{"1000 done, 1000 succeeded, 0 failed, 0 errored, 0 timeout", "status codes: 1000 2xx, 0 3xx, 0 4xx, 0 5xx"} {
				if !strings.Contains(got, want) {
					t.Errorf("h2load does not say %q:\n%s", want, got)
				}
			}
			if n := u.seen.Load() - before; n != 1000 {
				t.Errorf("the upstream has seen %d requests", n)
			}
		})
	}
}

// TestOpenSSL makes handshakes with OpenSSL's client: versions, ALPN, groups, sessions that are resumed.
func TestOpenSSL(t *testing.T) {
	u := newManyUpstream(t)
	a := newAuthority(t)
	g := newSecureGate(t, a, u.addr)
	args := []string{"s_client", "-connect", g.addr, "-servername", "a.test", "-CAfile", a.writeCA(), "-verify_return_error", "-verify_hostname", "a.test"}
	f := func(until func(said string) bool, want []string, more ...string) {
		t.Helper()
		got := handshake(t, until, append(args[:len(args):len(args)], more...))
		for _, w := range append(want, "Verification: OK") {
			if !strings.Contains(got, w) {
				t.Errorf("openssl %q does not say %q:\n%s", more, w, got)
			}
		}
	}
	done := func(said string) bool { return strings.Contains(said, "Verify return code: 0 (ok)") }
	f(done, []string{"New, TLSv1.3", "ALPN protocol: h2"}, "-tls1_3", "-alpn", "h2")
	f(done, []string{"New, TLSv1.2", "ALPN protocol: h2"}, "-tls1_2", "-alpn", "h2,http/1.1")
	f(done, []string{"ALPN protocol: http/1.1"}, "-alpn", "http/1.1")
	f(done, []string{"No ALPN negotiated"})
	f(done, []string{"Server Temp Key: X25519, 253 bits"}, "-groups", "X25519", "-tls1_3")
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		session := filepath.Join(t.TempDir(), "session.pem")
		saved := func(string) bool { // with TLS 1.3 the ticket comes after the handshake
			text, _ := os.ReadFile(session)
			return bytes.Contains(text, []byte("END SSL SESSION"))
		}
		f(saved, []string{"New, TLSv1."}, version, "-alpn", "h2", "-sess_out", session)
		f(done, []string{"Reused, TLSv1.", "ALPN protocol: h2"}, version, "-alpn", "h2", "-sess_in", session)
	}
	if out, err := command(t, "openssl", append(args, "-tls1_1")...).CombinedOutput(); err == nil && !bytes.Contains(out, []byte("alert protocol version")) {
		t.Errorf("TLS 1.1 was spoken:\n%s", out)
	}
	t.Run("X25519MLKEM768", func(t *testing.T) {
		if out, _ := command(t, "openssl", "list", "-kem-algorithms").CombinedOutput(); !bytes.Contains(out, []byte("X25519MLKEM768")) {
			t.Skip("openssl does not know it here")
		}
		f(done, []string{"X25519MLKEM768"}, "-groups", "X25519MLKEM768", "-tls1_3")
	})
}

// handshake runs openssl until it is to end, or ends itself, and gives all that it said.
func handshake(t *testing.T, until func(said string) bool, args []string) string {
	t.Helper()
	c := command(t, "openssl", args...)
	in, err := c.StdinPipe() // its end is the client's
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	c.Stdout, c.Stderr = far, far
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Wait() // its exit code says nothing: the server's end of a connection counts as an error
		_ = far.Close()
	}()
	var said bytes.Buffer
	buf := make([]byte, 4<<10)
	for open := true; ; {
		_ = near.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) // what until waits for need not be said
		n, err := near.Read(buf)
		said.Write(buf[:n])
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if open && until(said.String()) {
			open = false
			_ = in.Close()
		}
	}
	_ = near.Close()
	<-ended
	return said.String()
}
