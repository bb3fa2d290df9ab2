package upstream

import (
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Limits are what a route has of its own in the place of its upstream's; zero: the upstream's.
type Limits struct {
	Header, Idle, PerTry time.Duration
	Retry                *RetryPolicy
	Hedge                *HedgePolicy
	RequestTimeout       RequestTimeout
}

// RequestTimeout says whether clients may shorten the time of their requests by X-Request-Timeout, and upstreams are told what is
// left.
type RequestTimeout uint8

const (
	RequestTimeoutListener RequestTimeout = iota // as the listener says
	RequestTimeoutHeader
	RequestTimeoutIgnore
)

// Limit gives p limits of its own. It must come before p answers.
func (p *Proxy) Limit(l Limits) *Proxy {
	p.limits = l
	return p
}

// plan is how one exchange is answered: its upstream's settings, and what its route has instead of some.
type plan struct {
	set          *Settings
	retry        *RetryPolicy
	hedge        *HedgePolicy
	header, idle time.Duration
	perTry       time.Duration // 0: none
	ownHost      bool
	tell         bool // the upstream is told what is left of the time
}

// plan bounds x's time, and what is kept of its body. It fails if what the client says of the time is malformed.
func (p *Proxy) plan(x *core.Exchange, set *Settings) (plan, *core.Error) {
	own := &p.limits
	out := plan{set: set, retry: set.Retry, hedge: set.Hedge, header: set.Header, idle: set.Idle, ownHost: p.ownHost}
	if out.retry == nil {
		out.retry = &builtIn
	}
	if own.Retry != nil {
		out.retry = own.Retry
	}
	if own.Hedge != nil {
		out.hedge = own.Hedge
	}
	if h := out.hedge; h != nil && h.After == 0 && h.Percentile == 0 {
		out.hedge = nil
	}
	if own.Header > 0 {
		out.header = own.Header
	}
	if own.Idle > 0 {
		out.idle = own.Idle
	}
	switch {
	case own.PerTry > 0:
		out.perTry = own.PerTry
	case out.retry.PerTry > 0:
		out.perTry = out.retry.PerTry
	default:
		out.perTry = set.PerTry
	}
	total := p.timeout
	if total == 0 {
		total = set.Total
	}
	if total > 0 {
		x.Deadline = x.Times.Start + int64(total)
	}
	out.tell = own.RequestTimeout == RequestTimeoutHeader || own.RequestTimeout == RequestTimeoutListener && x.Listener.RequestTimeout
	if err := hurry(x, out.tell); err != nil {
		return out, err
	}
	x.ReplayLimit, x.KeepBody = set.ReplayBytes, out.retry.keep(x)
	switch {
	case out.hedge != nil && x.Request.Body != nil && out.retry.repeatable(x):
		x.KeepBody = core.KeepAlways
	case out.retry.On == 0:
		x.ReplayLimit = 0
	}
	return out, nil
}

// hurry lets the client's own deadline end a gRPC call, and with told any other request.
func hurry(x *core.Exchange, told bool) *core.Error {
	if x.Request.GRPC {
		d, ok := x.Request.GRPCTimeout()
		if !ok {
			return errGRPCTimeout
		}
		x.Hurry(d)
	}
	if told {
		d, ok := x.Request.RequestTimeout()
		if !ok {
			return errRequestTimeout
		}
		x.Hurry(d)
	}
	return nil
}

var (
	errGRPCTimeout    = &core.Error{Status: 400, Reason: "bad_request", Detail: "malformed grpc-timeout"}
	errRequestTimeout = &core.Error{Status: 400, Reason: "bad_request", Detail: "malformed x-request-timeout"}
)
