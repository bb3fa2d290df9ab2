package admin

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// TargetStatus is one upstream of a route that has several.
type TargetStatus struct {
	Upstream   string `json:"upstream"`
	Weight     int    `json:"weight"` // in force
	Configured int    `json:"configured_weight"`
}

// MirrorStatus is what became of the copies of a route's requests.
type MirrorStatus struct {
	Upstream string  `json:"upstream"`
	UnderWay int     `json:"under_way"`
	Sent     uint64  `json:"sent"`
	Answered uint64  `json:"answered"`
	Failed   uint64  `json:"failed"`
	Dropped  uint64  `json:"dropped"`         // since too many were under way
	TooLong  uint64  `json:"too_long"`        // their bodies
	Seconds  float64 `json:"average_seconds"` // up to the end of an answer
}

// SetWeights changes the weights of a route's upstreams. It holds over reloads until the configuration changes what the route's `to` says.
type SetWeights struct {
	Route   string         `json:"route"`
	Weights map[string]int `json:"weights"` // 0..1000; upstreams that are not named keep theirs. null: the configured ones again
}

// CanaryStatus is the canary of a route.
type CanaryStatus struct {
	Route   string            `json:"route"`
	Canary  string            `json:"canary"` // upstream, with the labels of its subset, as in u{version=v2}
	Stable  []string          `json:"stable"` // upstreams
	State   string            `json:"state"`  // progressing, paused, promoted or aborted
	Percent int               `json:"percent"`
	Step    int               `json:"step"` // from 1
	Steps   []int             `json:"steps"`
	Since   time.Time         `json:"since"`   // of the state or step
	Why     string            `json:"why"`     // it is in this state or step, or what it waits for
	Changes map[string]uint64 `json:"changes"` // how often it began, went forward, was paused, resumed, promoted, aborted
	// Sides are what requests came to since the step began.
	Sides map[string]SideStatus `json:"sides"` // canary, stable
}

// SideStatus is one side of a canary.
type SideStatus struct {
	Requests uint64  `json:"requests"`
	Failures uint64  `json:"failures"`
	P50      float64 `json:"p50_seconds"`
	P99      float64 `json:"p99_seconds"`
}

// ChangeCanary is what an operator wants of a canary: pause, resume, forward, promote or abort.
type ChangeCanary struct {
	Route  string `json:"route"`
	Change string `json:"change"`
}

func (s *Server) setWeights(c *fasthttp.RequestCtx) {
	var set SetWeights
	if !read(c, &set) {
		return
	}
	if err := s.source.SetWeights(set); err != nil {
		fail(c, fasthttp.StatusBadRequest, err.Error())
		return
	}
	replyOne(c, "route", s.source.Routes(), func(r *RouteStatus) bool { return r.Name == set.Route })
}

func (s *Server) changeCanary(c *fasthttp.RequestCtx) {
	var change ChangeCanary
	if !read(c, &change) {
		return
	}
	if err := s.source.ChangeCanary(change); err != nil {
		fail(c, fasthttp.StatusBadRequest, err.Error())
		return
	}
	replyOne(c, "canary", s.source.Canaries(), func(k *CanaryStatus) bool { return k.Route == change.Route })
}

// SetWeights changes the weights of a route's upstreams, and gives the route that results.
func (c *Client) SetWeights(set SetWeights) (r RouteStatus, err error) {
	return r, c.ask("PUT", "/routes", set, &r)
}

// Canaries gives the canaries in force.
func (c *Client) Canaries() (all []CanaryStatus, err error) {
	return all, c.ask("GET", "/canaries", nil, &all)
}

// ChangeCanary changes a canary, and gives the state that results.
func (c *Client) ChangeCanary(change ChangeCanary) (k CanaryStatus, err error) {
	return k, c.ask("PUT", "/canaries", change, &k)
}

// setWeights is `sluice ctl route NAME weight UPSTREAM=N...|configured`.
func (k *ctl) setWeights(words []string) error {
	if len(words) < 3 || words[1] != "weight" {
		return errUsage("route wants NAME, weight and UPSTREAM=N")
	}
	set := SetWeights{Route: words[0]}
	if len(words) > 3 || words[2] != "configured" {
		set.Weights = map[string]int{}
		for _, word := range words[2:] {
			at := strings.LastIndexByte(word, '=') // the name of a subset has some of its own
			n, err := strconv.Atoi(word[at+1:])
			name := word[:max(at, 0)]
			if _, twice := set.Weights[name]; name == "" || err != nil || twice {
				return errUsage(fmt.Sprintf("%q is not UPSTREAM=N, once for each", word))
			}
			set.Weights[name] = n
		}
	}
	r, err := k.client.SetWeights(set)
	return k.show(r, err, func(w io.Writer) { printRoutes(w, []RouteStatus{r}) })
}

// changeCanary is `sluice ctl canary ROUTE CHANGE`.
func (k *ctl) changeCanary(words []string) error {
	if len(words) != 2 {
		return errUsage("canary wants ROUTE and pause, resume, forward, promote or abort")
	}
	switch words[1] {
	case "pause", "resume", "forward", "promote", "abort":
	default:
		return errUsage(fmt.Sprintf("unknown change %q", words[1]))
	}
	s, err := k.client.ChangeCanary(ChangeCanary{words[0], words[1]})
	return k.show(s, err, func(w io.Writer) { printCanaries(w, []CanaryStatus{s}) })
}

func printCanaries(w io.Writer, all []CanaryStatus) {
	_, _ = fmt.Fprintln(w, "ROUTE\tSIDE\tUPSTREAM\tSTATE\tPERCENT\tSTEP\tREQUESTS\tFAILURES\tP50\tP99\tSINCE\tWHY")
	for _, c := range all {
		side := func(name, upstreams, state string, percent int, step, since, why string) {
			s := c.Sides[name]
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d%%\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n", cell(c.Route), name, upstreams, state, percent, step, s.Requests,
				s.Failures, seconds(s.P50), seconds(s.P99), since, why)
		}
		side("canary", cell(c.Canary), cell(c.State), c.Percent, fmt.Sprintf("%d of %d", c.Step, len(c.Steps)), instant(c.Since), cell(c.Why))
		side("stable", cells(c.Stable), "-", 100-c.Percent, "-", "-", "-")
	}
}

func printMirrors(w io.Writer, routes []RouteStatus) {
	first := true
	for _, r := range routes {
		m := r.Mirror
		if m == nil {
			continue
		}
		if first {
			_, _ = fmt.Fprintln(w, "\nROUTE\tMIRROR\tSENT\tANSWERED\tFAILED\tDROPPED\tTOO LONG\tUNDER WAY\tAVERAGE")
			first = false
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", cell(r.Name), cell(m.Upstream), m.Sent, m.Answered, m.Failed, m.Dropped, m.TooLong,
			m.UnderWay, seconds(m.Seconds))
	}
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(10 * time.Microsecond).String()
}
