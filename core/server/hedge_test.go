package server

import (
	"context"
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

const freely = "retry: { on: [reset, gateway_error], budget: { percent: 100%, floor: 100 } }"

// after answers later, unless the gateway has left by then, which is counted.
func after(d time.Duration, left *atomic.Int64, then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(d):
			then(w, r)
		case <-r.Context().Done():
			left.Add(1)
		}
	}
}

func (g *gate) hedges() (made, won uint64) {
	onEach(g.loops, func(i int) {
		m, w := g.state.Load().compiled.Upstreams[0].RetryCounts(i).Hedges()
		made, won = made+m, won+w
	})
	return made, won
}

// TestHedgeWins has one of two endpoints be slow: who was sent there is answered by the other long before, with the whole of a long
// body, and the slow one learns that nobody waits any more.
func TestHedgeWins(t *testing.T) {
	body := bodyOf(300 << 10)
	long := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
	for _, protocol := range []string{"h1", "h2c"} {
		t.Run(protocol, func(t *testing.T) {
			var left atomic.Int64
			slow := newFaulty(t, after(patience, &left, long))
			g := triedGate(t, protocol, ", hedge: 30ms, "+freely, "", slow, newFaulty(t, long))
			var clients sync.WaitGroup
			for i := range 6 {
				client := h1Client(t)
				if i%2 == 0 {
					client = h2Client(t)
				}
				clients.Go(func() {
					for range 6 {
						within(t, patience/4, "to answer", func() {
							if got := g.outcomeOf(client, "GET", nil); got != "200 "+body {
								t.Errorf("%d bytes: %.60q", len(got), got)
							}
						})
					}
				})
			}
			clients.Wait()
			made, won := g.hedges()
			if n := slow.seen.Load(); n < 10 || won < 10 || made < won {
				t.Errorf("%d requests met the slow endpoint, %d attempts beside others, %d won", n, made, won)
			}
			eventually(t, "the slow endpoint was left", func() bool { return left.Load() == slow.seen.Load() })
		})
	}
}

// soon waits for an attempt, but not for ever if none is made.
func soon(came <-chan struct{}) {
	select {
	case <-came:
	case <-time.After(patience / 4):
	}
}

// TestHedgeLoses has the first attempt answer after all, or the second come to nothing: then the first counts.
func TestHedgeLoses(t *testing.T) {
	for _, protocol := range []string{"h1", "h2c"} {
		for name, second := range map[string]http.HandlerFunc{"stalls": stall, "fails": answerWith(503), "resets": reset} {
			t.Run(protocol+" "+name, func(t *testing.T) {
				t.Parallel() // it only waits
				var seen atomic.Int64
				came := make(chan struct{}, 1)
				either := func(w http.ResponseWriter, r *http.Request) {
					if seen.Add(1)%2 == 0 {
						came <- struct{}{}
						second(w, r)
						return
					}
					soon(came)
					<-time.After(100 * time.Millisecond) // in which it may come to nothing
					repeatBack(w, r)
				}
				g := triedGate(t, protocol, ", hedge: 20ms, "+freely, "", newFaulty(t, either), newFaulty(t, either))
				client := h2Client(t)
				for range 4 {
					if got := g.outcomeOf(client, "GET", nil); got != "200 GET " {
						t.Errorf("%q", got)
					}
				}
				if made, won := g.hedges(); made != 4 || won != 0 || seen.Load() != 8 {
					t.Errorf("%d requests, %d attempts beside others, %d won", seen.Load(), made, won)
				}
			})
		}
	}
}

// TestHedgeOutlivesTheFirst has the first attempt fail while the second is under way: no third is needed.
func TestHedgeOutlivesTheFirst(t *testing.T) {
	for name, first := range map[string]http.HandlerFunc{"resets": reset, "503": answerWith(503)} {
		for _, protocol := range []string{"h1", "h2c"} {
			t.Run(protocol+" "+name, func(t *testing.T) {
				t.Parallel() // it only waits
				var seen atomic.Int64
				came := make(chan struct{}, 1)
				either := func(w http.ResponseWriter, r *http.Request) {
					if seen.Add(1)%2 == 0 {
						came <- struct{}{}
						<-time.After(100 * time.Millisecond) // in which the first fails
						repeatBack(w, r)
						return
					}
					soon(came)
					first(w, r)
				}
				g := triedGate(t, protocol, ", hedge: 60ms, "+freely, "", newFaulty(t, either), newFaulty(t, either))
				for range 4 {
					if got := g.outcomeOf(h1Client(t), "GET", nil); got != "200 GET " {
						t.Errorf("%q", got)
					}
				}
				if made, won := g.hedges(); made != 4 || won != 4 || seen.Load() != 8 {
					t.Errorf("%d requests, %d attempts beside others, %d won", seen.Load(), made, won)
				}
			})
		}
	}
}

// TestHedgeNotAlways makes no second attempt for what may not be executed twice, has a body that is not kept, or is over the budget.
func TestHedgeNotAlways(t *testing.T) {
	for _, c := range []struct{ more, route, method, body string }{
		{"hedge: 10ms, " + freely, "", "POST", ""},
		{"hedge: 10ms, " + freely, "", "POST", "a body"},
		{"hedge: 10ms, replay_bytes: 5B, " + freely, "", "PUT", "a body"},
		{"hedge: 10ms, replay_bytes: 0, " + freely, "", "PUT", "a body"},
		{"hedge: 10ms, retry: { budget: { percent: 0%, floor: 0 } }", "", "GET", ""},
		{"hedge: 10ms, pool: { max_retries: 1 }, retry: { on: connect }", ", hedge: off", "GET", ""},
		{"hedge: 10s, " + freely, "", "GET", ""},
		{"hedge: p95, " + freely, "", "GET", ""}, // of which nothing is known yet
	} {
		t.Run(c.more+c.route+c.method, func(t *testing.T) {
			var left, seen atomic.Int64
			slow := after(100*time.Millisecond, &left, repeatBack)
			counted := func(w http.ResponseWriter, r *http.Request) { seen.Add(1); slow(w, r) }
			g := triedGate(t, "h1", ", "+c.more, c.route, newFaulty(t, counted), newFaulty(t, counted))
			var body io.Reader
			if c.body != "" {
				body = strings.NewReader(c.body)
			}
			if got := g.outcomeOf(h1Client(t), c.method, body); !strings.HasPrefix(got, "200 "+c.method) || seen.Load() != 1 {
				t.Errorf("%q after %d requests", got, seen.Load())
			}
		})
	}
}

// TestHedgeByPercentile learns how long answers take, and makes a second attempt for those that take longer.
func TestHedgeByPercentile(t *testing.T) {
	var slow atomic.Bool
	var left atomic.Int64
	late := after(patience, &left, repeatBack)
	first := newFaulty(t, func(w http.ResponseWriter, r *http.Request) {
		if slow.Load() {
			late(w, r)
			return
		}
		repeatBack(w, r)
	})
	g := triedGate(t, "h1", ", hedge: p99, "+freely, "", first, newFaulty(t, repeatBack))
	client := h1Client(t) // one connection, and so one loop
	for range 600 {
		g.want(client, "GET", "/", "", "200 GET ")
	}
	slow.Store(true)
	within(t, patience/4, "to answer", func() {
		for range 6 {
			g.want(client, "GET", "/", "", "200 GET ")
		}
	})
	if _, won := g.hedges(); won < 3 {
		t.Errorf("%d attempts beside others have won", won)
	}
}

// TestHedgeLeavesWithClient ends both attempts when the client leaves, and answers no later than the deadline.
func TestHedgeLeavesWithClient(t *testing.T) {
	for _, client := range []*http.Client{h1Client(t), h2Client(t)} {
		var left atomic.Int64
		never := after(patience, &left, repeatBack)
		all := []*faulty{newFaulty(t, never), newFaulty(t, never)}
		g := triedGate(t, "h1", ", hedge: 20ms, "+freely, ", timeout: 10s", all...)
		ctx, leave := context.WithCancel(context.Background())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan string)
		go func() { done <- g.outcomeOfRequest(client, r) }()
		eventually(t, "both are asked", func() bool { return all[0].seen.Load() == 1 && all[1].seen.Load() == 1 })
		leave()
		<-done
		within(t, patience/4, "to end", func() {
			eventually(t, "both are left", func() bool { return left.Load() == 2 && g.active() == 0 })
		})
		g = triedGate(t, "h1", ", hedge: 20ms, "+freely, ", timeout: 100ms", all...)
		g.want(client, "GET", "/", "", "504 total_timeout")
	}
}

// TestHedgeStress lets everything happen at any time: each answer is whole, and of the client's own request.
func TestHedgeStress(t *testing.T) {
	for _, protocol := range []string{"h1", "h2c"} {
		moody := func(w http.ResponseWriter, r *http.Request) {
			<-time.After(time.Duration(rand.N(60)) * time.Millisecond)
			switch rand.N(8) {
			case 0:
				reset(w, r)
			case 1:
				answerWith(503)(w, r)
			default:
				_, _ = fmt.Fprint(w, strings.Repeat(r.URL.Path, 1000))
			}
		}
		g := triedGate(t, protocol, ", hedge: 15ms, retry: { attempts: 4, on: [reset, 503], backoff: { base: 1ms }, budget: { percent: 100%, floor: 100 } }", "",
			newFaulty(t, moody), newFaulty(t, moody), newFaulty(t, moody))
		var clients sync.WaitGroup
		good := atomic.Int64{}
		for i := range 12 {
			client := h1Client(t)
			if i%2 == 0 {
				client = h2Client(t)
			}
			clients.Go(func() {
				for j := range 25 {
					path := fmt.Sprintf("/%d/%d", i, j)
					switch got := g.outcome(client, "GET", path, ""); {
					case got == "200 "+strings.Repeat(path, 1000):
						good.Add(1)
					case got != "503 no luck" && got != "502 upstream_reset" && got != "502 upstream_closed":
						t.Errorf("%s: %.100q", path, got)
					}
				}
			})
		}
		clients.Wait()
		if good.Load() < 280 {
			t.Errorf("%d of 300 were answered well", good.Load())
		}
	}
}
