package redis

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/sluice-gateway/sluice/core/vacant"
	"github.com/sluice-gateway/sluice/limits"
)

// server is a real Redis, that a test may stop and start again under its address.
type server struct {
	t    testing.TB
	addr string
	args []string
	cmd  *exec.Cmd
}

// newServer starts one that keeps nothing. Where there is none the test is skipped.
func newServer(t testing.TB, args ...string) *server {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed here")
	}
	addr := vacant.Address(t)
	_, port, _ := net.SplitHostPort(addr)
	s := &server{t: t, addr: addr, args: append([]string{path, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir(),
		"--unixsocket", filepath.Join(t.TempDir(), "s")}, args...)}
	t.Cleanup(s.kill)
	s.start()
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.await(func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}, "redis-server does not listen")
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// pause makes it answer nothing, as a network does that swallows packets.
func (s *server) pause()  { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }
func (s *server) resume() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *server) await(f func() bool, failure string) {
	s.t.Helper()
	await(s.t, f, failure)
}

func await(t testing.TB, f func() bool, failure string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); {
		if time.Now().After(end) {
			t.Fatal(failure)
		}
		time.Sleep(time.Millisecond)
	}
}

func newLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func wall() int64 { return time.Now().UnixNano() }

// do asks s what no bucket does, over a connection of its own.
func (s *server) do(command ...string) rueidis.RedisResult {
	s.t.Helper()
	conn, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.addr}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	return conn.Do(context.Background(), conn.B().Arbitrary(command...).Build())
}

// text is what it answers; "": an error, or none.
func (s *server) text(command ...string) string {
	text, _ := s.do(command...).ToString()
	return text
}

// briefly has a client wait as long as a gateway does, where a test is of that: a busy machine may take longer.
func briefly(s *Spec) { s.Timeout = 50 * time.Millisecond }

// client is connected to s.
func (s *server) client(change func(*Spec)) *Client {
	s.t.Helper()
	spec := Spec{Addresses: []string{s.addr}, Mode: Single, Timeout: time.Second, Clock: wall, Log: newLog()}
	if change != nil {
		change(&spec)
	}
	c, err := New(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	c.Start()
	s.t.Cleanup(c.Close)
	s.await(func() bool { return !c.Away() }, "the client does not find redis-server")
	return c
}

func buckets(t testing.TB, c *Client, name string, windows ...limits.Window) *Buckets {
	t.Helper()
	b, err := c.Buckets(BucketSpec{Policy: t.Name(), Name: name, Windows: windows, Together: true})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// text is what of a decision a test compares.
func text(d limits.Decision, err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%t level %d window %d: %d of %d", d.Allowed, d.Level, d.Window, d.Remaining, d.Limit)
}
