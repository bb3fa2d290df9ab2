package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestJWTLoad: tokens that are all different, every other one forged, are told apart, and what is kept of them is bounded. With
// SLUICE_SOAK set there are 50,000 of each, but not with the race detector, which takes minutes and sees no more in them.
func TestJWTLoad(t *testing.T) {
	each, padding := 3000, 9<<10
	if os.Getenv(soakVariable) != "" && !raceDetector {
		each, padding = 50_000, 1<<10
	}
	secret := "a secret of at least thirty-two bytes"
	t.Setenv("SLUICE_TEST_SECRET", secret)
	g := newGate(t, `
loops: 2
access_log: { to: off }
listeners: { http: { bind: "127.0.0.1:0" } }
routes: [{ match: "/*", use: [{ jwt: { audience: api, secret: "env:SLUICE_TEST_SECRET" } }], respond: {} }]
`)
	pad, exp := strings.Repeat("x", padding), time.Now().Add(time.Hour).Unix()
	token := func(n int, right bool) string {
		signed := b64([]byte(`{"alg":"HS256"}`)) + "." + b64(fmt.Appendf(nil, `{"aud":"api","sub":"user-%d","exp":%d,"pad":%q}`, n, exp, pad))
		m := hmac.New(sha256.New, []byte(secret))
		m.Write([]byte(signed))
		sum := m.Sum(nil)
		if !right {
			sum[n%len(sum)] ^= 1
		}
		return signed + "." + b64(sum)
	}
	client := newH1Client(t)
	var wrong atomic.Int64
	ask := func(n int, right bool) {
		req, _ := http.NewRequest("GET", "http://"+g.addr+"/", nil)
		req.Header.Set("Authorization", "Bearer "+token(n, right))
		res, err := client.Do(req)
		if err != nil {
			wrong.Add(1)
			return
		}
		_ = res.Body.Close()
		if (res.StatusCode == 200) != right || !right && res.StatusCode != 401 {
			wrong.Add(1)
		}
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	ask(0, true)
	before := heap()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for n := worker; n < each; n += 8 {
				ask(n, true)
				ask(n, false)
			}
		})
	}
	all.Wait()
	if wrong.Load() > 0 {
		t.Errorf("%d of %d tokens were judged wrong", wrong.Load(), 2*each)
	}
	// Two loops with two generations of 4 MiB each, and what else is about.
	if grown := int64(heap()) - int64(before); grown > 26<<20 {
		t.Errorf("%d MiB more are kept, of %d MiB of tokens", grown>>20, each*len(token(0, true))>>20)
	} else {
		t.Logf("%d MiB more are kept, of %d MiB of tokens", grown>>20, each*len(token(0, true))>>20)
	}
}
