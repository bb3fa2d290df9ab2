package server

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// unsized hides the length of a body, so that it is sent in chunks or frames without one.
type unsized struct{ io.Reader }

// echoTrailed answers with the request's method, its body and its trailer.
func echoTrailed(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = fmt.Fprintf(w, "%s %s%s", r.Method, body, r.Trailer.Get("X-End"))
}

// TestHedgeBody has one of two endpoints be slow: a request with a body of any kind that is kept is answered by the other, which gets the whole
// of it, and what follows it.
func TestHedgeBody(t *testing.T) {
	for _, protocol := range []string{"h1", "h2c"} {
		for name, client := range map[string]*http.Client{"h1": h1Client(t), "h2": h2Client(t)} {
			t.Run(name+" to "+protocol, func(t *testing.T) {
				var left atomic.Int64
				slow := newFaulty(t, after(patience, &left, echoTrailed))
				g := triedGate(t, protocol, ", hedge: 30ms, replay_bytes: 64KiB, "+freely, "", slow, newFaulty(t, echoTrailed))
				for i, body := range []string{"x", bodyOf(10 << 10), bodyOf(64 << 10), ""} {
					for _, sized := range []bool{true, false} {
						for range 2 { // one of which meets the slow one
							r, err := http.NewRequest(http.MethodPut, "http://"+g.addr+"/", strings.NewReader(body))
							if err != nil {
								t.Fatal(err)
							}
							want := "200 PUT " + body
							if !sized {
								r.Body, r.ContentLength = io.NopCloser(unsized{strings.NewReader(body)}), -1
								r.Trailer = http.Header{"X-End": {"end"}}
								want += "end"
							}
							within(t, patience/4, "to answer", func() {
								if got := g.outcomeOfRequest(client, r); got != want {
									t.Errorf("body %d, sized %v: %d bytes: %.60q", i, sized, len(got), got)
								}
							})
						}
					}
				}
				if made, won := g.hedges(); won < 6 || made != won {
					t.Errorf("%d attempts beside others, %d won", made, won)
				}
				eventually(t, "the slow endpoint was left", func() bool { return left.Load() == slow.seen.Load() })
			})
		}
	}
}

// TestHedgeBodyWaits sends the first part of a body and makes the client hold back the rest: no second attempt is made until that has come
// and has waited in its turn, and it has the whole body then.
func TestHedgeBodyWaits(t *testing.T) {
	for _, protocol := range []string{"h1", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			var left, seen atomic.Int64
			var second atomic.Int64 // when the second attempt came
			slow := after(patience, &left, echoTrailed)
			either := func(w http.ResponseWriter, r *http.Request) {
				if seen.Add(1) == 1 {
					slow(w, r)
					return
				}
				second.Store(time.Now().UnixNano())
				echoTrailed(w, r)
			}
			g := triedGate(t, protocol, ", hedge: 400ms, "+freely, "", newFaulty(t, either), newFaulty(t, either))
			body, send := io.Pipe()
			var whole atomic.Int64
			done := make(chan string)
			go func() { done <- g.outcomeOf(h1Client(t), http.MethodPut, body) }()
			_, _ = io.WriteString(send, "one ")
			time.Sleep(600 * time.Millisecond) // longer than the hedge waits
			if seen.Load() != 1 {
				t.Errorf("%d attempts with half of a body", seen.Load())
			}
			whole.Store(time.Now().UnixNano())
			_, _ = io.WriteString(send, "two")
			_ = send.Close()
			if got := <-done; got != "200 PUT one two" {
				t.Errorf("%q", got)
			}
			if took := time.Duration(second.Load() - whole.Load()); seen.Load() != 2 || took < 200*time.Millisecond { // by the clock of the loop, which a busy machine makes late
				t.Errorf("%d attempts, the second %v after the request was whole", seen.Load(), took)
			}
			eventually(t, "the first was left", func() bool { return left.Load() == 1 })
		})
	}
}

// TestHedgeBodyTooLong makes no second attempt once a body of unknown length has become longer than what is kept.
func TestHedgeBodyTooLong(t *testing.T) {
	var left, seen atomic.Int64
	slow := after(150*time.Millisecond, &left, answerWith(200))
	counted := func(w http.ResponseWriter, r *http.Request) { seen.Add(1); slow(w, r) }
	g := triedGate(t, "h1", ", hedge: 10ms, replay_bytes: 64KiB, "+freely, "", newFaulty(t, counted), newFaulty(t, counted))
	for i, body := range []io.Reader{unsized{strings.NewReader(bodyOf(64<<10 + 1))}, strings.NewReader(bodyOf(200 << 10))} {
		if got := g.outcomeOf(h1Client(t), http.MethodPut, body); !strings.HasPrefix(got, "200") || seen.Load() != int64(i+1) {
			t.Errorf("%q after %d requests", got, seen.Load())
		}
	}
}

// TestHedgeBodyStress lets everything happen at any time: each answer is whole, and that to the client's own body.
func TestHedgeBodyStress(t *testing.T) {
	for _, protocol := range []string{"h1", "h2c"} {
		moody := func(w http.ResponseWriter, r *http.Request) {
			early := rand.N(10)
			if early == 0 { // before the body has been read
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			<-time.After(time.Duration(rand.N(50)) * time.Millisecond)
			if early == 1 {
				reset(w, r)
				return
			}
			_, _ = w.Write(body)
		}
		g := triedGate(t, protocol, ", hedge: 12ms, replay_bytes: 64KiB, retry: { attempts: 4, on: [reset, 503], backoff: { base: 1ms }, budget: { percent: 100%, floor: 100 } }", "",
			newFaulty(t, moody), newFaulty(t, moody), newFaulty(t, moody))
		var clients sync.WaitGroup
		good := atomic.Int64{}
		for i := range 8 {
			client := h1Client(t)
			if i%2 == 0 {
				client = h2Client(t)
			}
			clients.Go(func() {
				for j := range 20 {
					body := strings.Repeat(fmt.Sprintf("%d/%d ", i, j), 1+rand.N(8000))
					reader := io.Reader(strings.NewReader(body))
					if j%2 == 0 {
						reader = unsized{reader}
					}
					switch got := g.outcomeOf(client, http.MethodPut, reader); {
					case got == "200 "+body:
						good.Add(1)
					case strings.HasPrefix(got, "200"):
						t.Errorf("%d of %d bytes, or others", len(got)-4, len(body))
					}
				}
			})
		}
		clients.Wait()
		if good.Load() < 140 {
			t.Errorf("%s: %d of 160 were answered well", protocol, good.Load())
		}
		if made, won := g.hedges(); won < 5 {
			t.Errorf("%s: %d attempts beside others, %d won", protocol, made, won)
		}
	}
}
