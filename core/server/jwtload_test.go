package server

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// tokenLoad makes tokens that are all different, and asks with them.
type tokenLoad struct {
	issuer *tokenIssuer
	client *http.Client
	url    string
	pad    string
	wrong  atomic.Int64
	bytes  atomic.Int64
}

// refusedFor are the reasons for which tokens are refused, by turns.
var refusedFor = [...]string{"token_signature", "token_expired", "token_audience"}

// token is the nth; why is the reason for which it is refused, "": it is right.
func (l *tokenLoad) token(n int, why string) string {
	claims := map[string]any{"sub": fmt.Sprint("user-", n), "exp": time.Now().Unix() + 3600}
	switch why {
	case "":
		claims["pad"] = l.pad // only what is right is kept
	case "token_expired":
		claims["exp"] = time.Now().Unix() - 600
	case "token_audience":
		claims["aud"] = "another"
	}
	alg, head := "EdDSA", `{"alg":"EdDSA","kid":"d"}`
	if n%2 == 1 {
		alg, head = "ES256", `{"alg":"ES256","kid":"e"}`
	}
	text := []byte(l.issuer.sign(alg, head, claimsWith(claims)))
	if why == "token_signature" {
		at := bytes.LastIndexByte(text, '.') + 1 + n%40
		text[at] = map[bool]byte{true: 'B', false: 'A'}[text[at] == 'A']
	}
	l.bytes.Add(int64(len(text)))
	return string(text)
}

func (l *tokenLoad) ask(n int, why string) {
	req, _ := http.NewRequest("GET", l.url, nil)
	req.Header.Set("Authorization", "Bearer "+l.token(n, why))
	res, err := l.client.Do(req)
	if err != nil {
		l.wrong.Add(1)
		return
	}
	defer res.Body.Close()
	if res.StatusCode != map[bool]int{true: 200, false: 401}[why == ""] {
		l.wrong.Add(1)
	}
}

// round asks with as many right tokens as wrong ones, from the first on.
func (l *tokenLoad) round(first, each int) {
	const clients = 8
	var all sync.WaitGroup
	for worker := range clients {
		all.Go(func() {
			for n := first + worker; n < first+each; n += clients {
				l.ask(n, "")
				l.ask(n, refusedFor[n%len(refusedFor)])
			}
		})
	}
	all.Wait()
}

// liveMiB is what is reachable, residentMiB what of the process is in memory.
func liveMiB() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what a first one has put aside for finalizers and pools
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

func residentMiB() float64 {
	text, _ := os.ReadFile("/proc/self/statm")
	if fields := strings.Fields(string(text)); len(fields) > 1 {
		pages, _ := strconv.Atoi(fields[1])
		return float64(pages*os.Getpagesize()) / (1 << 20)
	}
	return 0
}

// TestJWTLoad: tokens that are all different, every other one wrong, are told apart; the metrics count each refusal by its reason; what is
// kept of tokens is bounded, in each round. With SLUICE_SOAK set there are 50,000 of each.
func TestJWTLoad(t *testing.T) {
	rounds, each := 3, 700
	if os.Getenv(soakVariable) != "" && !raceDetector { // with it that takes minutes, and shows no more
		rounds, each = 5, 10_000
	}
	l := &tokenLoad{issuer: newTokenIssuer(t), client: newH1Client(t), pad: strings.Repeat("x", 9<<10)}
	g := run(t, `
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
routes: [{ match: "/*", use: [{ jwt: { audience: api, jwks: "`+l.issuer.url+`" } }], respond: {} }]
`)
	l.url = "http://" + g.addr + "/"
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // until the keys are there
		req, _ := http.NewRequest("GET", l.url, nil)
		req.Header.Set("Authorization", "Bearer "+l.token(rounds*each, ""))
		res, err := l.client.Do(req)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == 200 {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no token passes: %v %v", res, err)
		}
	}
	before := liveMiB()
	// Two loops with two generations of core.RecentBytes each, and what else is about. How full the younger ones are changes from round to
	// round; more than all four there is never, however many tokens came.
	const bound = 2*2*core.RecentBytes>>20 + 4
	for i := range rounds {
		begin := time.Now()
		l.round(i*each, each)
		took := time.Since(begin)
		kept := liveMiB() - before
		t.Logf("round %d: %d tokens in %v, %.1f MiB more are kept, %.1f MiB resident", i+1, 2*each, took.Round(time.Millisecond), kept, residentMiB())
		if kept > bound {
			t.Errorf("after round %d %.1f MiB more are kept, of %d MiB of tokens", i+1, kept, l.bytes.Load()>>20)
		}
	}
	if n := l.wrong.Load(); n > 0 {
		t.Errorf("%d of %d tokens were judged wrong", n, 2*rounds*each)
	}
	metrics, err := g.admin.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	for i, reason := range refusedFor {
		n := 0
		for k := range rounds * each {
			if k%len(refusedFor) == i {
				n++
			}
		}
		if want := fmt.Sprintf("sluice_rejects_total{reason=%q,side=\"downstream\"} %d\n", reason, n); !strings.Contains(string(metrics), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
