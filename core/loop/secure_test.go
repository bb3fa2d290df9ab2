package loop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// certificate makes a self-signed one for "test". sign, if given, is asked before each signature.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func serverConfig(t testing.TB) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"echo"}}
}

func clientConfig() *tls.Config {
	return &tls.Config{ServerName: "test", InsecureSkipVerify: true, NextProtos: []string{"echo"}}
}

// secured gives a handler that shakes hands before h serves.
func secured(t testing.TB, config *tls.Config, h serve) serve {
	var mu sync.Mutex
	done := map[*Conn]bool{}
	return func(c *Conn) {
		mu.Lock()
		shaken := done[c]
		done[c] = true
		mu.Unlock()
		if !shaken {
			state, err := c.SecureServer(config, nil)
			if err != nil {
				return
			}
			if state.NegotiatedProtocol != "echo" {
				t.Errorf("negotiated protocol %q", state.NegotiatedProtocol)
			}
		}
		h(c)
	}
}

// dribble is a client's connection that sends a few bytes at a time, across the borders of records.
type dribble struct{ net.Conn }

func (d dribble) Write(p []byte) (n int, err error) {
	for n < len(p) {
		k, err := d.Conn.Write(p[n:min(n+7, len(p))])
		if n += k; err != nil {
			return n, err
		}
		if len(p) < 600 {
			time.Sleep(100 * time.Microsecond) // so that the pieces are not merged again
		}
	}
	return n, nil
}

// What a client of crypto/tls sends comes back, in both versions, whole and in pieces, small and over many records; between
// requests the connection is idle and holds no buffer.
func TestSecureEcho(t *testing.T) {
	l, _ := start(t, Options{})
	at := accepting(t, l, secured(t, serverConfig(t), echo))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, slow := range []bool{false, true} {
			var raw net.Conn = dialed(t, at)
			if slow {
				raw = dribble{raw}
			}
			config := clientConfig()
			config.MaxVersion = version
			c := tls.Client(raw, config)
			for i, size := range []int{1, 100, 20_000, 3, 300_000} {
				if slow && size > 20_000 {
					continue
				}
				if err := exchange(c, 7, int64(i)<<20, size); err != nil {
					t.Fatalf("version %#x slow %v size %d: %v", version, slow, size, err)
				}
			}
			eventually(t, l, "the connection is idle and holds nothing", func() bool {
				for _, x := range l.conns {
					if x != nil && x.secure != nil && (!x.idle || x.secure.buf != nil || x.secure.out != nil) {
						return false
					}
				}
				return true
			})
			check(t, c.CloseWrite()) // close_notify, and then the server's
			if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("after close_notify: %d, %v", n, err)
			}
			check(t, raw.Close())
		}
	}
	eventually(t, l, "all buffers are back", func() bool {
		for _, x := range l.conns {
			if x != nil {
				return false
			}
		}
		return true
	})
}

// A client of the loop speaks with a server of crypto/tls, and two tasks of one connection read and write at the same time,
// more than the sockets hold.
func TestSecureBothWays(t *testing.T) {
	const size = 8 << 20
	listener, err := tls.Listen("tcp", "127.0.0.1:0", serverConfig(t))
	check(t, err)
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	l, _ := start(t, Options{})
	task(t, l, func() {
		c, err := l.Dial(Address{AddrPort: listener.Addr().(*net.TCPAddr).AddrPort()}, nil, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		state, err := c.SecureClient(clientConfig())
		if err != nil || state.NegotiatedProtocol != "echo" {
			t.Errorf("handshake: %v, protocol %q", err, state.NegotiatedProtocol)
			return
		}
		l.Go(func() {
			out := make([]byte, size)
			pattern(out, 3, 0)
			if n, err := c.Write(out); n != size || err != nil {
				t.Errorf("wrote %d: %v", n, err)
			}
			c.CloseWrite()
		})
		got, buf := int64(0), make([]byte, 50_000)
		for {
			n, err := c.Read(buf)
			if at := differs(buf[:n], 3, got); at >= 0 {
				t.Errorf("byte %d differs", got+int64(at))
				return
			}
			got += int64(n)
			if err != nil {
				if err != io.EOF || got != size {
					t.Errorf("%d bytes, then %v", got, err)
				}
				return
			}
		}
	})
}

// signer counts the signatures that are made through Offload.
type signer struct {
	crypto.Signer
	conn  net.Conn
	count *atomic.Int32
}

func (s signer) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) (out []byte, err error) {
	Offload(s.conn, func() {
		s.count.Add(1)
		time.Sleep(20 * time.Millisecond) // as a large key takes
		out, err = s.Signer.Sign(r, digest, o)
	})
	return out, err
}

// A signature that takes long is made beside the loop: several at the same time, and an echo meanwhile.
func TestSecureOffload(t *testing.T) {
	const clients = 8
	cert := certificate(t)
	var count atomic.Int32
	config := &tls.Config{NextProtos: []string{"echo"}}
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		own := cert
		own.PrivateKey = signer{cert.PrivateKey.(crypto.Signer), hello.Conn, &count}
		return &own, nil
	}
	l, j := start(t, Options{})
	at := accepting(t, l, secured(t, config, echo))
	var all sync.WaitGroup
	for i := range clients {
		c := tls.Client(dialed(t, at), clientConfig())
		all.Go(func() {
			if err := exchange(c, uint64(i), 0, 1000); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := count.Load(); n != clients {
		t.Errorf("%d signatures beside the loop, want %d", n, clients)
	}
	if late := j.with("late"); len(late) > 0 {
		t.Errorf("the loop was held: %q", late)
	}
}

// Garbage instead of a handshake, a client that leaves in the middle of one, and one that is silent end the connection.
func TestSecureHandshakeFails(t *testing.T) {
	l, _ := start(t, Options{})
	config := serverConfig(t)
	failures := make(chan error, 3)
	at := accepting(t, l, serve(func(c *Conn) {
		c.ReadTimeout = int64(100 * time.Millisecond)
		_, err := c.SecureServer(config, nil)
		failures <- err
	}))
	for _, start := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00", "\x16"} {
		c := dialed(t, at)
		_, err := c.Write([]byte(start))
		check(t, err)
		if len(start) == 7 {
			check(t, c.Close())
		}
		if err := receive(t, failures, "a failed handshake"); err == nil {
			t.Errorf("%q passes for a handshake", start)
		}
		eventually(t, l, "the connection is closed", func() bool {
			for _, x := range l.conns {
				if x != nil {
					return false
				}
			}
			return true
		})
	}
}
