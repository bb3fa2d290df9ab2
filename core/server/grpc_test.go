package server

import (
	"context"
	cryptotls "crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/sluice-gateway/sluice/core/vacant"
)

// newCallee starts the server of gRPC's interoperability cases.
func newCallee(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	testpb.RegisterTestServiceServer(s, interop.NewTestServer())
	healthpb.RegisterHealthServer(s, health.NewServer())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return ln.Addr().String()
}

func newCaller(t *testing.T, addr string, c credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// callGate is a gateway between gRPC clients and a server, in clear text.
func callGate(t *testing.T, upstream, more string) *gate {
	t.Helper()
	return newGate(t, strings.Replace(h2Config(upstream, "[h1, h2c]"), `"] } }`, `"], protocol: h2c`+more+` } }`, 1))
}

// interopCases takes the real client through the cases that all gRPC implementations share. A failure ends the test's process.
func interopCases(t *testing.T, cc *grpc.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tc := testpb.NewTestServiceClient(cc)
	interop.DoEmptyUnaryCall(ctx, tc)
	interop.DoLargeUnaryCall(ctx, tc)
	interop.DoClientStreaming(ctx, tc)
	interop.DoServerStreaming(ctx, tc)
	interop.DoPingPong(ctx, tc)
	interop.DoEmptyStream(ctx, tc)
	interop.DoTimeoutOnSleepingServer(ctx, tc)
	interop.DoCancelAfterBegin(ctx, tc)
	interop.DoCancelAfterFirstResponse(ctx, tc)
	interop.DoCustomMetadata(ctx, tc)
	interop.DoStatusCodeAndMessage(ctx, tc)
	interop.DoSpecialStatusMessage(ctx, tc)
	interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(cc))
	interop.DoUnimplementedMethod(ctx, cc)
}

func TestGRPCInterop(t *testing.T) {
	g := callGate(t, newCallee(t), "")
	cc := newCaller(t, g.addr, insecure.NewCredentials())
	interopCases(t, cc)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() { interopCases(t, cc) })
	}
	wait.Wait()
	_ = cc.Close()
	eventually(t, "nothing is under way", func() bool { return g.active() == 0 && g.counters().Streams == 0 })
	if c := g.counters(); c.Calm != [len(c.Calm)]uint64{} {
		t.Errorf("a connection was ended: %+v", c)
	}
}

// TestGRPCInteropTLS is encrypted on both sides.
func TestGRPCInteropTLS(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue(false, "callee.example")
	pair, err := cryptotls.X509KeyPair(cert, key)
	a.must(err)
	callee := newCallee(t, grpc.Creds(credentials.NewTLS(&cryptotls.Config{Certificates: []cryptotls.Certificate{pair}, NextProtos: []string{"h2"}})))
	folder := t.TempDir()
	cert, key = a.issue(false, "a.test")
	a.put(folder, "a", cert, key)
	a.must(os.WriteFile(filepath.Join(folder, "ca.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600))
	g := newGate(t, fmt.Sprintf(`
access_log: { to: off }
log: { level: error }
listeners: { https: { bind: "127.0.0.1:0", tls: { certificates: [{ cert: %[1]s/a.pem, key: %[1]s/a.key }] } } }
upstreams: { a: { endpoints: ["%[2]s"], protocol: h2, tls: { ca: %[1]s/ca.pem, server_name: callee.example } } }
routes: [{ match: "/*", to: a }]
`, folder, callee))
	interopCases(t, newCaller(t, g.addr, credentials.NewTLS(&cryptotls.Config{RootCAs: a.pool, ServerName: "a.test"})))
}

// TestGRPCFailures shows what clients are told when the gateway itself answers.
func TestGRPCFailures(t *testing.T) {
	callee := newCallee(t)
	text := strings.Replace(h2Config(callee, "[h2c]"), `"] } }`, `"], protocol: h2c }, b: { endpoints: ["`+vacant.Address(t)+`"], protocol: h2c } }`, 1)
	text = strings.Replace(text, `routes: [{ match: "/*", to: a }]`, `routes: [{ match: "/grpc.testing.TestService/*", to: a, body_bytes: 100KiB }, { match: "/grpc.health.v1.Health/*", to: b }]`, 1)
	g := newGate(t, text)
	cc := newCaller(t, g.addr, insecure.NewCredentials())
	tc := testpb.NewTestServiceClient(cc)
	f := func(what string, want codes.Code, message string, call func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := call(ctx); grpcstatus.Code(err) != want || !strings.Contains(grpcstatus.Convert(err).Message(), message) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	f("no upstream", codes.Unavailable, "connect_failed", func(ctx context.Context) error {
		_, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	})
	f("no route", codes.Unimplemented, "not_found", func(ctx context.Context) error {
		return cc.Invoke(ctx, "/a.B/C", &testpb.Empty{}, &testpb.Empty{})
	})
	f("too large", codes.ResourceExhausted, "body_too_large", func(ctx context.Context) error {
		_, err := tc.UnaryCall(ctx, &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 200<<10)}})
		return err
	})
}

// TestGRPCDeadline shows that the gateway keeps the client's deadline, also when the client does not: with a raw client, which
// waits for the answer.
func TestGRPCDeadline(t *testing.T) {
	u := newManyUpstream(t)
	g := callGate(t, u.addr, "")
	c := dialRawH2(t, g.addr)
	id := uint32(1)
	for _, timeout := range []string{"50m", "50000u"} {
		begun := time.Now()
		if err := c.headers(id, true, requestFields("POST", "/hold", "content-type", "application/grpc", "grpc-timeout", timeout)...); err != nil {
			t.Fatal(err)
		}
		got, err := c.fields(id)
		if err != nil || got["grpc-status"] != "4" || got[":status"] != "200" || got["content-type"] != "application/grpc" {
			t.Errorf("%s: %v, %v", timeout, got, err)
		}
		if d := time.Since(begun); d < 40*time.Millisecond {
			t.Errorf("%s: answered after %v", timeout, d)
		}
		id += 2
	}
	eventually(t, "the upstream is told", func() bool { return u.held.Load() == 0 })
	for _, timeout := range []string{"1", "123456789S", "1x", "-1S"} {
		if err := c.headers(id, true, requestFields("POST", "/hold", "content-type", "application/grpc", "grpc-timeout", timeout)...); err != nil {
			t.Fatal(err)
		}
		if got, err := c.fields(id); err != nil || got["grpc-status"] != "13" {
			t.Errorf("%s: %v, %v", timeout, got, err)
		}
		id += 2
	}
}

// TestGRPCQuietStreams shows that a stream lives as long as either side speaks: each of the timeouts is for silence on both.
func TestGRPCQuietStreams(t *testing.T) {
	text := strings.Replace(h2Config(newCallee(t), "[h2c]"), `"] } }`, `"], protocol: h2c, timeouts: { header: 1500ms, idle: 1500ms } } }`, 1)
	text = strings.Replace(text, "protocols:", "timeouts: { body: 1500ms }\n    protocols:", 1)
	g := newGate(t, text)
	tc := testpb.NewTestServiceClient(newCaller(t, g.addr, insecure.NewCredentials()))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	up, err := tc.StreamingInputCall(ctx) // only the client speaks
	if err != nil {
		t.Fatal(err)
	}
	const messages = 20 // they take longer than the timeouts, and each of them far less, also on a busy machine
	for range messages {
		if err := up.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // the test's subject is how much time passes
	}
	if sum, err := up.CloseAndRecv(); err != nil || sum.AggregatedPayloadSize != messages {
		t.Errorf("%v, %v", sum, err)
	}

	both, err := tc.FullDuplexCall(ctx) // only the server does, after one request
	if err != nil {
		t.Fatal(err)
	}
	var parameters []*testpb.ResponseParameters
	for range messages {
		parameters = append(parameters, &testpb.ResponseParameters{Size: 1, IntervalUs: 100_000})
	}
	if err := both.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: parameters}); err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		if _, err := both.Recv(); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	_, err = both.Recv() // now nobody does
	if code := grpcstatus.Code(err); code == codes.OK || errors.Is(err, io.EOF) {
		t.Errorf("a silent stream has ended with %v", err)
	}
}

// TestGRPCTrailersOnly shows that an answer without a body is passed on as it came: one header section that ends the stream.
func TestGRPCTrailersOnly(t *testing.T) {
	g := callGate(t, newCallee(t), "")
	c := dialRawH2(t, g.addr)
	if err := c.headers(1, true, requestFields("POST", "/no.Such/Method", "content-type", "application/grpc+proto", "te", "trailers")...); err != nil {
		t.Fatal(err)
	}
	got, err := c.fields(1)
	if err != nil || got[":status"] != "200" || got["grpc-status"] != "12" || got["end"] != "headers" || !strings.Contains(got["grpc-message"], "unknown service") {
		t.Errorf("%v, %v", got, err)
	}
}

// TestGRPCReload changes the configuration again and again while streams go on.
func TestGRPCReload(t *testing.T) {
	callee := newCallee(t)
	config := func(n int) string {
		return strings.Replace(h2Config(callee, "[h2c]"), `"] } }`, fmt.Sprintf(`"], protocol: h2c, timeouts: { connect: %ds } } }`, n+1), 1)
	}
	g := run(t, config(0))
	tc := testpb.NewTestServiceClient(newCaller(t, g.addr, insecure.NewCredentials()))
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x", "y"), patience)
	defer cancel()
	stream, err := tc.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		if n%5 == 4 {
			g.write(config(n))
			if err := g.admin.Reload(true); err != nil {
				t.Fatal(err)
			}
		}
		if err := stream.Send(&testpb.StreamingOutputCallRequest{ResponseParameters: []*testpb.ResponseParameters{{Size: 100_000}}}); err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err != nil || len(m.Payload.Body) != 100_000 {
			t.Fatalf("message %d: %v", n, err)
		}
		interop.DoEmptyUnaryCall(ctx, tc)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("the end: %v", err)
	}
}
