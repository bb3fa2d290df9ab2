package admin

import (
	"bytes"
	"fmt"
	"io"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	profiles       = "/debug/pprof/"
	stacksAsText   = 2 // as a panic writes them
	profileInBytes = "application/octet-stream"
)

// recording is a profile that takes time. The runtime makes one of each at once.
type recording struct {
	name            string
	seconds, atMost int // unless the client says; a trace of a busy gateway has some megabytes a second
	start           func(to io.Writer) error
	stop            func()
}

var recordings = [...]recording{
	{"profile", 30, 60, pprof.StartCPUProfile, pprof.StopCPUProfile},
	{"trace", 1, 10, trace.Start, trace.Stop},
}

// profile gives what go tool pprof and go tool trace read. The paths and queries are those of net/http/pprof. What is in memory is in
// none of them: they tell of functions, sizes and counts.
func (s *Server) profile(name string) []method {
	if name == "" {
		return get(listProfiles)
	}
	for _, r := range recordings {
		if r.name == name {
			return get(func(c *fasthttp.RequestCtx) { s.record(c, &r) })
		}
	}
	p := pprof.Lookup(name)
	if p == nil {
		return nil
	}
	return get(func(c *fasthttp.RequestCtx) {
		debug, ok := number(c, "debug", 0, stacksAsText)
		if !ok {
			return
		}
		c.SetContentType(profileInBytes)
		if debug > 0 {
			c.SetContentType("text/plain; charset=utf-8")
		}
		if err := p.WriteTo(c, debug); err != nil {
			fail(c, fasthttp.StatusInternalServerError, err.Error())
		}
	})
}

// number reads a number of the query, or refuses it.
func number(c *fasthttp.RequestCtx, name string, otherwise, most int) (n int, ok bool) {
	text := string(c.QueryArgs().Peek(name))
	if text == "" {
		return otherwise, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		fail(c, fasthttp.StatusBadRequest, fmt.Sprintf("%s is %q: 0 to %d", name, text, most))
		return 0, false
	}
	return n, true
}

func (s *Server) record(c *fasthttp.RequestCtx, r *recording) {
	seconds, ok := number(c, "seconds", r.seconds, r.atMost)
	if !ok {
		return
	}
	var b bytes.Buffer
	if err := r.start(&b); err != nil {
		fail(c, fasthttp.StatusConflict, err.Error())
		return
	}
	wait := time.NewTimer(time.Duration(seconds) * time.Second)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-s.ending: // with what there is
	}
	r.stop()
	c.SetContentType(profileInBytes)
	c.Response.SetBodyRaw(b.Bytes())
}

// listProfiles names what can be asked for, one a line.
func listProfiles(c *fasthttp.RequestCtx) {
	var names []string
	for _, p := range pprof.Profiles() {
		names = append(names, p.Name())
	}
	for _, r := range recordings {
		names = append(names, r.name)
	}
	slices.Sort(names)
	c.SetContentType("text/plain; charset=utf-8")
	c.SetBodyString(strings.Join(names, "\n") + "\n")
}
