package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// endpointVariable makes this test's process an endpoint: "ADDRESS NAME".
const endpointVariable = "SLUICE_TEST_ENDPOINT"

// process is an endpoint that is a process of its own, so that it can be killed and stopped as endpoints are. It answers with its name
// and, by what it was told last at /behave/HOW: "ok", a status, "reset" before the answer, "stall" before it, "half" of a body and then
// nothing, or "cut" with a reset. A request may ask for a delay by ?ms=.
type process struct {
	t    testing.TB
	name string
	addr string
	cmd  *exec.Cmd // nil: it does not live
	life io.Closer // its standard input, with whose end it ends
}

// newProcesses starts n endpoints, each on an address of its own and all on one port, so that one name can stand for them.
func newProcesses(t testing.TB, n int) (all []*process) {
	t.Helper()
	port := "0"
	for i := range n {
		p := &process{t: t, name: fmt.Sprint("endpoint", i), addr: fmt.Sprintf("127.0.7.%d:%s", i+1, port)}
		t.Cleanup(p.kill)
		p.start()
		_, port, _ = net.SplitHostPort(p.addr)
		all = append(all, p)
	}
	return all
}

// start has it listen on its address.
func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Env = append(os.Environ(), endpointVariable+"="+p.addr+" "+p.name)
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.life = in
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.t.Fatalf("%s does not listen: %v", p.name, err)
	}
	p.addr = strings.TrimSpace(line)
}

// kill ends it at once, and waits until it has ended.
func (p *process) kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
	_ = p.life.Close()
	p.cmd = nil
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// behave tells it how to answer.
func (p *process) behave(how string) {
	p.t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	res, err := c.Get("http://" + p.addr + "/behave/" + how)
	if err != nil {
		p.t.Fatal(err)
	}
	_ = res.Body.Close()
}

// beEndpoint is the main function of an endpoint.
func beEndpoint(spec string) int {
	addr, name, _ := strings.Cut(spec, " ")
	var ln net.Listener
	var err error
	for range 100 { // who was killed may take a moment to let go of its address
		if ln, err = net.Listen("tcp", addr); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0) // who started it has gone
	}()
	e := &endpoint{name: name}
	e.how.Store("ok")
	server := &http.Server{Handler: e, Protocols: &http.Protocols{}}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	fmt.Println(ln.Addr())
	fmt.Fprintln(os.Stderr, server.Serve(ln))
	return 1
}

// endpoint is what answers in a process.
type endpoint struct {
	name string
	how  atomic.Value // string
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if how, ok := strings.CutPrefix(r.URL.Path, "/behave/"); ok {
		e.how.Store(how)
		return
	}
	how := e.how.Load().(string)
	if r.URL.Path == "/health" && how != "503" {
		how = "ok" // a check finds nothing but death
	}
	if ms, err := strconv.Atoi(r.URL.Query().Get("ms")); err == nil {
		time.Sleep(time.Duration(ms) * time.Millisecond)
	}
	body := e.name + " " + strings.Repeat("x", 1000)
	switch how {
	case "ok":
		_, _ = io.WriteString(w, body)
	case "stall":
		<-r.Context().Done()
	case "reset":
		panic(http.ErrAbortHandler)
	case "half", "cut":
		w.Header().Set("Content-Length", strconv.Itoa(2*len(body)))
		_, _ = io.WriteString(w, body)
		_ = http.NewResponseController(w).Flush()
		if how == "cut" {
			panic(http.ErrAbortHandler)
		}
		<-r.Context().Done()
	default:
		status, _ := strconv.Atoi(how)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}
