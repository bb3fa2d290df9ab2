package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// slowVariable sets the number of slow connections in TestSlowConnections, and makes its figure one that must be met.
const slowVariable = "SLUICE_SLOW"

// TestSlowConnections holds many connections that send heads and bodies, and take answers, byte by byte, while a good client goes on:
// all of its requests are answered. How long they took with and without is measured in turns, so that whatever else the machine does is
// in both, and printed. At last the slow ones are gone.
func TestSlowConnections(t *testing.T) {
	most, rounds, grace := 300, 3, "4s"
	given := os.Getenv(slowVariable)
	if given != "" {
		n, err := strconv.Atoi(given)
		if err != nil {
			t.Fatal(err)
		}
		most, rounds, grace = n, 5, "8s"
	}
	u := newManyUpstream(t)
	g := newGate(t, strings.Replace(slowConfig(u.addr), "receive: 1000B/s, send: 1000B/s, grace: 300ms", "receive: 240B/s, send: 240B/s, grace: "+grace, 1))
	good := &http.Client{Transport: &http.Transport{}, Timeout: patience}
	held := func() int { return g.listeners[0].caps.Open() }
	g.calmest(good) // until all is as it stays
	var quiet, attacked latency
	for round := range rounds {
		q := g.calmest(good)
		slow := newSlowers(t, g.addr, most)
		if round == 0 {
			eventually(t, "they are there", func() bool { return held() >= most*9/10 })
		}
		g.calmest(good) // by now those who take answers have as much as the kernels hold for them
		a := g.calmest(good)
		t.Logf("good client: %v; beside %d slow connections %v", q, held(), a)
		// A machine that takes longer than the grace for all this has measured something else.
		if held() >= most*9/10 {
			quiet, attacked = quiet.better(q), attacked.better(a)
		}
		if round == rounds-1 { // they are told to go
			eventually(t, "they are gone", func() bool { return held() <= 1 })
		}
		slow.kill()
		eventually(t, "they have left", func() bool { return held() <= 1 && g.active() == 0 })
	}
	if quiet.p99 == 0 {
		t.Skip("the machine is too busy to measure anything")
	}
	t.Logf("the best of all: %v; beside slow connections %v, %.2f times that at p99", quiet, attacked, float64(attacked.p99)/float64(quiet.p99))
	// On a machine that has other work the figure says little; a gateway that slow clients hold up is off by far more.
	bound := 2 * quiet.p99
	if given == "" {
		bound += 50 * time.Millisecond
	}
	if attacked.p99 > bound {
		t.Errorf("p99 beside slow connections is %v, want at most %v", attacked.p99, bound)
	}
}

// latency is what requests took.
type latency struct{ p50, p99 time.Duration }

func (l latency) String() string { return fmt.Sprintf("p50 %v, p99 %v", l.p50, l.p99) }

// better is that of l and m with the lower p99: other work of a machine only adds to it. None is worse than any.
func (l latency) better(m latency) latency {
	if l.p99 == 0 || m.p99 < l.p99 {
		return m
	}
	return l
}

// calmest is the better of some short spells of requests, one after the other.
func (g *gate) calmest(client *http.Client) (best latency) {
	const spells, requests = 4, 400
	var took [requests]time.Duration
	for range spells {
		for i := range took {
			start := time.Now()
			g.mustAnswer(client, "/small")
			took[i] = time.Since(start)
		}
		slices.Sort(took[:])
		best = best.better(latency{took[requests/2], took[requests*99/100]})
	}
	return best
}

// slowersVariable makes this test's process one of slow clients: "ADDRESS NUMBER".
const slowersVariable = "SLUICE_TEST_SLOWERS"

// slowers are slow clients in a process of their own, whose runtime does not stand in the way of those that are measured.
type slowers struct {
	cmd  *exec.Cmd
	life io.Closer // its standard input, with whose end it ends
}

// newSlowers gives them when all have connected.
func newSlowers(t testing.TB, addr string, n int) *slowers {
	t.Helper()
	s := &slowers{cmd: exec.Command("/proc/self/exe")}
	s.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", slowersVariable, addr, n))
	s.cmd.Stderr = os.Stderr
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.life = in
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the slow clients are not there: %q, %v", line, err)
	}
	return s
}

// kill ends them at once.
func (s *slowers) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it was killed
	_ = s.life.Close()
	s.cmd = nil
}

// beSlow is the main function of slow clients: a third sends heads, a third bodies, and a third takes answers, byte by byte.
func beSlow(spec string) int {
	addr, number, _ := strings.Cut(spec, " ")
	most, err := strconv.Atoi(number)
	if err != nil {
		return 2
	}
	pace := max(slowPace, time.Duration(most)*100*time.Microsecond) // so that the clients do not need the machine for themselves
	for i := range most {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		go (&slowClient{conn}).trickle(i%3, pace)
	}
	fmt.Println("there")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// trickle is what one of them does, until the peer has had enough.
func (c *slowClient) trickle(kind int, pace time.Duration) {
	defer func() { _ = c.Close() }()
	switch kind {
	case 0:
		c.drip("GET /small HTTP/1.1\r\nHost: a\r\nX: ", strings.Repeat("x", 1000), pace)
	case 1:
		c.drip("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("x", 1000), pace)
	default:
		_ = c.Conn.(*net.TCPConn).SetReadBuffer(4096)
		_, err := io.WriteString(c, "GET /download/16777216 HTTP/1.1\r\nHost: a\r\n\r\n")
		for b := make([]byte, 1); err == nil; time.Sleep(pace) {
			_, err = c.Read(b)
		}
	}
}
