// Package fault is the policy that makes requests late, or makes them fail, on purpose: to see what clients and dashboards make of it.
// It takes its share of the requests by chance, and only of those that bear a header if it has one.
package fault

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Spec says which requests fail, and how.
type Spec struct {
	DelayShare float64 // of the requests, 0..1
	Delay      time.Duration
	AtOnce     int // requests that are delayed at the same time, on all loops together; more are not delayed

	AbortShare float64 // of the requests, after their delay, 0..1
	Status     int     // 400..599; 0: one of the others
	GRPC       int     // 1..16, which what is no gRPC call is told as an HTTP status; 0: one of the others
	Reset      bool    // there is no answer: the connection or stream is reset

	Header string // that the requests bear; "": all are meant
}

// Counts are of one loop.
type Counts struct {
	Delayed uint64
	Aborted uint64
	Spared  uint64 // that were not delayed, since too many were
}

// Policy is the policy. All but its counts is immutable; loops share it.
type Policy struct {
	spec    Spec
	err     *core.Error // of what is aborted
	delayed *atomic.Int64
	lanes   []*lane // by loop
}

// lane is what one loop has counted. Nobody else touches it.
type lane struct {
	Counts
	_ [64]byte // keeps the lanes of two loops off one cache line
}

// New gives the policy for so many loops. It goes on with the counts of before, which may be nil.
func New(spec Spec, before *Policy, loops int) *Policy {
	p := &Policy{spec: spec, delayed: &atomic.Int64{}}
	if before != nil {
		p.delayed, p.lanes = before.delayed, before.lanes
	}
	for len(p.lanes) < loops {
		p.lanes = append(p.lanes, &lane{})
	}
	switch {
	case spec.Reset:
		p.err = errReset
	case spec.GRPC > 0:
		p.err = grpcErrors[spec.GRPC]
	default:
		p.err = statusErrors[spec.Status]
	}
	return p
}

// Counts are those of a loop, on which it is called.
func (p *Policy) Counts(index int) Counts { return p.lanes[index].Counts }

// OnRequest delays a request, and then aborts it, as chance will have it.
func (p *Policy) OnRequest(x *core.Exchange) core.Verdict {
	s := &p.spec
	if s.Header != "" {
		if _, meant := x.Request.Lookup(s.Header); !meant {
			return core.Continue
		}
	}
	a := p.lanes[x.Worker.Loop.Index()]
	if drawn(s.DelayShare) {
		if p.delayed.Add(1) <= int64(s.AtOnce) {
			a.Delayed++
			if p.wait(x) == core.Respond {
				return core.Respond
			}
		} else {
			p.delayed.Add(-1)
			a.Spared++
		}
	}
	if !drawn(s.AbortShare) {
		return core.Continue
	}
	a.Aborted++
	if c := x.Downstream.Conn(); s.Reset && c != nil {
		c.Reset()
	}
	x.Fail(p.err)
	return core.Respond
}

func drawn(share float64) bool { return share > 0 && (share >= 1 || rand.Float64() < share) }

// wait delays a request that is counted as delayed. It ends when the client leaves.
func (p *Policy) wait(x *core.Exchange) core.Verdict {
	defer p.delayed.Add(-1) // also after a panic
	return x.Delay(p.spec.Delay)
}

const reason = "fault_injected"

// errReset has no status: nobody is told.
var errReset = &core.Error{Reason: reason, Detail: "reset", Side: core.SideInternal, Close: true}

// statusErrors are made once, as all errors are, by status.
var statusErrors = func() (t [600]*core.Error) {
	for status := 400; status < len(t); status++ {
		t[status] = &core.Error{Status: status, Reason: reason, Side: core.SideInternal}
	}
	return t
}()

// grpcErrors are by status of gRPC, each with the status of HTTP that stands for it where errors of gRPC are told to others
// (google.rpc.Code, "HTTP Mapping").
var grpcErrors = func() (t [17]*core.Error) {
	for status, http := range [...]int{0, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401} {
		t[status] = &core.Error{Status: http, GRPC: status, Reason: reason, Side: core.SideInternal}
	}
	return t
}()
