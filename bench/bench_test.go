package main

import (
	"bytes"
	"context"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const wrkGood = `Running 3s test @ http://127.0.0.1:8080/1k
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   812.15us  120.01us   4.50ms   91.20%
    Req/Sec    78.90k     1.20k   80.11k    70.00%
  Latency Distribution
     50%  697.00us
     75%    0.90ms
     90%    1.00ms
     99%    1.17ms
  242166 requests in 3.01s, 289.54MB read
Requests/sec:  80454.00
Transfer/sec:     96.19MB
`

func TestParseWrk(t *testing.T) {
	f := func(name, text string, want loadResult, wantTrouble string) {
		t.Helper()
		got, err := parseWrk(scenario{}, []byte(text))
		if err != nil {
			t.Fatalf("%s: %s", name, err)
		}
		if got != want {
			t.Fatalf("%s: got %+v, want %+v", name, got, want)
		}
		trouble := ""
		if err := got.trouble(); err != nil {
			trouble = err.Error()
		}
		if trouble != wantTrouble {
			t.Fatalf("%s: trouble %q, want %q", name, trouble, wantTrouble)
		}
	}
	good := loadResult{requests: 242166, elapsed: 3010 * time.Millisecond, mean: 812150, p50: 697 * time.Microsecond, p99: 1170 * time.Microsecond}
	f("good", wrkGood, good, "")

	refused := good
	refused.refused = 17
	f("refused", strings.Replace(wrkGood, "Requests/sec", "  Non-2xx or 3xx responses: 17\nRequests/sec", 1), refused,
		"17 of 242166 answers were no success")

	broken := good
	broken.broken = 1 + 20 + 300 + 4000
	f("broken", strings.Replace(wrkGood, "Requests/sec", "  Socket errors: connect 1, read 20, write 300, timeout 4000\nRequests/sec", 1),
		broken, "4321 socket errors or time-outs")

	f("nothing", "  0 requests in 3.01s, 0.00B read\n", loadResult{elapsed: 3010 * time.Millisecond}, "no request was completed")
}

func TestParseWrkRefuses(t *testing.T) {
	f := func(text string) {
		t.Helper()
		if got, err := parseWrk(scenario{}, []byte(text)); err == nil {
			t.Fatalf("%q was read as %+v", text, got)
		}
	}
	f("")
	f("unable to connect to 127.0.0.1:1 Connection refused\n")
	f(strings.ReplaceAll(wrkGood, "99%", "98%"))
	f(strings.ReplaceAll(wrkGood, "242166", "99999999999999999999"))
}

func TestParseStat(t *testing.T) {
	// The name is hostile: spaces and a parenthesis. User 150, system 250, children's user 30 and system 4.
	got, err := parseStat([]byte("42 (a) S 99 (b) R 7 42 42 0 -1 4194304 10 20 30 40 150 250 30 4 20 0 1 0 100 1000 10\n"))
	want := processStat{parent: 7, ticks: 434 * clockTick}
	if err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "42 (x", "42 (x) R 7 42", "42 (x) R 7 1 1 0 -1 0 0 0 0 0 a 0 0 0 20"} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Fatalf("%q was read as %+v", text, got)
		}
	}
}

func TestParseKiB(t *testing.T) {
	text := []byte("Name:\tx\nVmHWM:\t   12345 kB\nVmRSS:\t     678 kB\n")
	if got, err := parseKiB(text, "VmHWM:"); err != nil || got != 12345 {
		t.Fatalf("got %d, %v", got, err)
	}
	if got, err := parseKiB(text, "Vm:"); err == nil {
		t.Fatalf("a missing field was read as %d", got)
	}
}

// fakeProcess writes what the bench reads of a process whose threads have run for the given nanoseconds.
func fakeProcess(t *testing.T, root string, pid, parent, ticks int, threads ...string) {
	t.Helper()
	write := func(path, text string) {
		path = filepath.Join(root, strconv.Itoa(pid), path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("stat", strconv.Itoa(pid)+" (p) S "+strconv.Itoa(parent)+" 1 1 0 -1 0 0 0 0 0 "+strconv.Itoa(ticks)+" 0 0 0 20 0 1\n")
	write("status", "VmHWM:\t100 kB\nVmRSS:\t10 kB\n")
	for i, nanoseconds := range threads {
		write(filepath.Join("task", strconv.Itoa(pid+i), "schedstat"), nanoseconds+" 5 6\n")
	}
}

func TestTreeIsSummed(t *testing.T) {
	root := t.TempDir()
	fakeProcess(t, root, 10, 1, 100, "1000000001", "2")
	fakeProcess(t, root, 20, 10, 50, "500000000")
	fakeProcess(t, root, 30, 20, 7, "70000000")
	fakeProcess(t, root, 40, 1, 9999, "99990000000") // a stranger
	p := procfs(root)
	pids, err := p.tree(10)
	if err != nil || !slices.Equal(pids, []int{10, 20, 30}) {
		t.Fatalf("tree %v, %v", pids, err)
	}
	got, err := p.cpu(10)
	want := cpuTime{ticks: 157 * clockTick, exact: 1570000003}
	if err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	if peak, err := p.peakKiB(10); err != nil || peak != 300 {
		t.Fatalf("peak %d, %v", peak, err)
	}
	// There is no smaps_rollup here.
	if resident, err := p.residentKiB(10); err != nil || resident != 30 {
		t.Fatalf("resident %d, %v", resident, err)
	}
	if _, err := p.cpu(11); err == nil {
		t.Fatal("a process that is not there was measured")
	}
}

func TestCPUTimeSince(t *testing.T) {
	f := func(before, after cpuTime, want time.Duration, wantAgree bool) {
		t.Helper()
		if got, agree := after.since(before); got != want || agree != wantAgree {
			t.Fatalf("got %v, %v, want %v, %v", got, agree, want, wantAgree)
		}
	}
	start := cpuTime{ticks: time.Second, exact: 1001 * time.Millisecond}
	f(start, cpuTime{4 * time.Second, 4012 * time.Millisecond}, 3011*time.Millisecond, true)
	f(start, cpuTime{4 * time.Second, 3 * time.Second}, 3*time.Second, false) // threads have ended
	f(cpuTime{ticks: time.Second}, cpuTime{ticks: 4 * time.Second}, 3*time.Second, true)
}

// The two accounts of a real process must agree, whatever the kernel's way of counting.
func TestAccountsOfKernelAgree(t *testing.T) {
	before, err := systemProc.cpu(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for start := time.Now(); time.Since(start) < 200*time.Millisecond; {
		for i := range 1000 {
			sum += i
		}
	}
	after, err := systemProc.cpu(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	spent, agree := after.since(before)
	if !agree || spent <= 0 {
		t.Fatalf("from %+v to %+v: %v, agree %v (%d)", before, after, spent, agree, sum)
	}
	if resident, err := systemProc.residentKiB(os.Getpid()); err != nil || resident < 1024 {
		t.Fatalf("resident %d KiB, %v", resident, err)
	}
}

func TestMedian(t *testing.T) {
	f := func(want float64, values ...float64) {
		t.Helper()
		original := slices.Clone(values)
		if got := median(values); got != want {
			t.Fatalf("median of %v is %v, want %v", values, got, want)
		}
		if !slices.Equal(values, original) {
			t.Fatalf("the values were reordered: %v", values)
		}
	}
	f(5, 5)
	f(2, 9, 1, 2)
	f(2.5, 9, 3, 1, 2)
	if got := median(nil); !math.IsNaN(got) {
		t.Fatalf("median of nothing is %v", got)
	}
}

func samplesOf(values ...float64) []sample {
	samples := make([]sample, len(values))
	for i, value := range values {
		samples[i].value = value
	}
	return samples
}

func TestCompareAndJudge(t *testing.T) {
	summaries := map[string]summary{
		subject:   summarize(samplesOf(9, 8, 12)),
		"nginx":   summarize(samplesOf(12, 10, 14)),
		"haproxy": summarize(samplesOf(10, 16, 11)),
	}
	got := compare(summaries)
	if got.medianRatio["nginx"] != 0.75 || got.betterMedian != 9.0/11 || got.betterMin != 0.8 {
		t.Fatalf("got %+v", got)
	}
	f := func(s scenario, own summary, against comparison, want verdict) {
		t.Helper()
		if got := judge(s, own, against); got != want {
			t.Fatalf("target %v: got %q, want %q", s.target, got, want)
		}
	}
	own := summaries[subject]
	f(scenario{target: 0.82}, own, got, met)
	f(scenario{target: 0.81}, own, got, missed)
	f(scenario{}, own, got, noTarget)
	f(scenario{kind: memoryPerIdle, target: 9}, own, comparison{}, met)
	f(scenario{kind: memoryPerIdle, target: 8.9}, own, comparison{}, missed)
	f(scenario{target: 1}, summary{}, compare(map[string]summary{"nginx": summaries["nginx"]}), unknown)
	f(scenario{target: 1}, own, compare(map[string]summary{subject: own}), unknown)
	partly := own
	partly.failed = 1
	f(scenario{target: 1}, partly, got, unknown)
	f(scenario{target: 0.1}, partly, got, missed)
}

func TestReportShowsFailures(t *testing.T) {
	s := allScenarios()[0]
	peers := allPeers("sluice")[:2]
	samples := [][]sample{samplesOf(8, 9), samplesOf(10, 12)}
	samples[0][1].err = os.ErrDeadlineExceeded
	r := report{results: []measurement{{scenario: s, peers: peers, samples: samples}}}
	text := r.markdown()
	for _, want := range []string{
		"| h1-64 | 8.00 (8.00), failed 1 of 2 | 11.00 (10.00) | 0.73 | 0.73 | 0.80 | <= 0.88 | ? |",
		"- h1-64, sluice, round 2: **failed, not counted**: i/o timeout",
		"| 1 of 2 |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if !r.failed() {
		t.Error("the report does not know that a run failed")
	}
}

func TestSaveReportKeepsEarlierOnes(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "results")
	day := time.Date(2026, 11, 21, 23, 0, 0, 0, time.UTC)
	for _, text := range []string{"one\n", "two\n"} {
		if err := saveReport(folder, day, text); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(filepath.Join(folder, "2026-11-21.md"))
	if err != nil || string(got) != "one\ntwo\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestOptions(t *testing.T) {
	f := func(wantError string, args ...string) options {
		t.Helper()
		opts, err := parseOptions(args, &bytes.Buffer{})
		if wantError == "" && err != nil || wantError != "" && (err == nil || !strings.Contains(err.Error(), wantError)) {
			t.Fatalf("%q: got error %v, want %q", args, err, wantError)
		}
		return opts
	}
	if opts := f(""); len(opts.peers) != 3 || len(opts.scenarios) != 25 || opts.rounds != 5 || opts.seconds != 3 {
		t.Fatalf("defaults: %+v", opts)
	}
	if opts := f("", "-peers", "haproxy,sluice", "-sluice", "/x"); opts.peers[0].binary != "/x" || opts.peers[1].name != "haproxy" {
		t.Fatalf("chosen: %+v", opts.peers)
	}
	f(`unknown scenario "h3"`, "-scenario", "h1-1,h3")
	f(`unknown peer "x"`, "-peers", "x")
	f("-rounds", "-rounds", "0")
	f("-seconds", "-seconds", "0")
	f("unexpected argument", "run")
	if got := commandLine([]string{"-out", "", "-peers", "a b"}); got != "go run ./bench -out '' -peers 'a b'" {
		t.Fatalf("command line %q", got)
	}
}

func TestMissingToolIsNamed(t *testing.T) {
	err := findTools([]peer{allPeers(filepath.Join(t.TempDir(), "sluice"))[0]}, nil)
	if err == nil || !strings.Contains(err.Error(), "cannot find sluice") || !strings.Contains(err.Error(), "make build") {
		t.Fatalf("got %v", err)
	}
}

func TestAssignCPUs(t *testing.T) {
	got, err := assignCPUs([]int{2, 3, 5}, -1)
	if err != nil || !slices.Equal(got.proxy, []int{5}) || !slices.Equal(got.load, []int{2, 3}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := assignCPUs([]int{2, 3}, 4); err == nil {
		t.Fatal("a processor that is not there was accepted")
	}
	if _, err := assignCPUs([]int{2}, -1); err == nil {
		t.Fatal("one processor was accepted")
	}
}

// Every configuration of every scenario must please the program it is for.
func TestConfigurationsAreValid(t *testing.T) {
	check := map[string]func(dir, config string) []string{
		subject:   func(_, config string) []string { return []string{"check", "-c", config} },
		"nginx":   func(dir, config string) []string { return append(nginxArgs(dir, config), "-t") },
		"haproxy": func(_, config string) []string { return []string{"-c", "-f", config} },
	}
	made, err := makeIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	shown, err := makeTokens(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, large := range []bool{false, true} {
		r := rig{identity: made, tokens: shown, opts: options{largeBuffers: large}, upstreams: upstreams{fixed: "127.0.0.1:1", calls: "127.0.0.1:3", reader: "127.0.0.1:2"}, fileLimit: 1024}
		for _, s := range allScenarios() {
			for _, p := range allPeers("../bin/sluice") {
				dir := t.TempDir()
				site, err := r.site(s, dir)
				if err != nil {
					t.Fatal(err)
				}
				config, err := p.writeConfig(site)
				if err != nil {
					t.Fatalf("%s, %s: %s", s.name, p.name, err)
				}
				text, err := os.ReadFile(config)
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range []string{site.Listen, site.Upstream, site.AccessLog} {
					if !bytes.Contains(text, []byte(want)) && !(p.logToStdout && want == site.AccessLog) {
						t.Fatalf("%s, %s: no %q in the configuration", s.name, p.name, want)
					}
				}
				args, ok := check[p.name]
				if _, err := exec.LookPath(p.binary); !ok || err != nil {
					continue
				}
				if output, err := exec.Command(p.binary, args(dir, config)...).CombinedOutput(); err != nil {
					t.Errorf("%s, %s: %s: %s", s.name, p.name, err, output)
				}
			}
		}
	}
}

func TestUpstreamConfigurationIsValid(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "upstream.conf")
	listen, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	s := site{Dir: dir, Listen: listen, FileLimit: 1024, SmallBody: string(fill(smallBodyBytes))}
	if err := render("upstream.conf.tmpl", config, s); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(nginxBinary); err != nil {
		t.Skip("nginx is not installed")
	}
	if output, err := exec.Command(nginxBinary, append(nginxArgs(dir, config), "-t")...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %s", err, output)
	}
}

func TestCountJSONLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	f := func(text string, want int, wantError bool) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := countJSONLines(path)
		if got != want || (err != nil) != wantError {
			t.Fatalf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	f("", 0, false)
	f("{\"status\":200}\n{\"status\":200}\n{\"sta", 2, false)
	f("127.0.0.1 - - 200\n", 0, true)
}

// A process that ignores SIGTERM is killed, and so are its children.
func TestStopEndsTheTree(t *testing.T) {
	l := newLauncher()
	defer l.close()
	cpus, err := splitCPUs(-1)
	if err != nil {
		t.Skip(err)
	}
	var output lockedBuffer
	p, err := l.start(program{name: "stubborn", path: "/bin/sh", cpus: cpus.proxy, stdout: &output,
		args: []string{"-c", `trap "" TERM; sleep 600 & grep Cpus_allowed_list /proc/self/status; echo started; wait; wait`}})
	if err != nil {
		t.Fatal(err)
	}
	if err := poll(t.Context(), func() (bool, error) { return strings.Contains(output.String(), "started"), nil }); err != nil {
		t.Fatal(err)
	}
	if want := "Cpus_allowed_list:\t" + strconv.Itoa(cpus.proxy[0]) + "\n"; !strings.Contains(output.String(), want) {
		t.Errorf("not bound to processor %v: %q", cpus.proxy, output.String())
	}
	pids, err := systemProc.tree(p.pid())
	if err != nil || len(pids) != 2 {
		t.Fatalf("tree %v, %v", pids, err)
	}
	l.stop(p)
	if p.alive() == nil {
		t.Fatal("it is still running")
	}
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = poll(soon, func() (bool, error) {
		stat, err := os.ReadFile(systemProc.path(pids[1], "stat"))
		return err != nil || bytes.Contains(stat, []byte(") Z ")), nil
	})
	if err != nil {
		t.Fatalf("the child of the stopped process is still running: %s", err)
	}
}

// The connections' generator against answers it must refuse.
func TestReceive(t *testing.T) {
	f := func(answer string, wantError string) {
		t.Helper()
		client, server := net.Pipe()
		defer client.Close()
		go func() {
			server.Write([]byte(answer)) //nolint:errcheck // the client may have seen enough
			server.Close()
		}()
		err := (&connection{conn: client, target: target{bodyBytes: 5}}).receive()
		if wantError == "" && err != nil || wantError != "" && (err == nil || !strings.Contains(err.Error(), wantError)) {
			t.Fatalf("%q: got %v, want %q", answer, err, wantError)
		}
	}
	f("HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\nheld\n", "")
	f("HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nheld\n", "status line")
	f("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld", "content length 4")
	f("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", "EOF")
}

// lockedBuffer is written by the copier of a process's output and read by the test.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
