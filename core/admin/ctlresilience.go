package admin

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
)

// flagsText are the reasons not to use an endpoint, and of an ejection why and for how long.
func flagsText(e *EndpointStatus) string {
	flags := slices.Clone(e.Flags)
	if i := slices.Index(flags, "ejected"); i >= 0 && e.Ejection != nil {
		flags[i] = fmt.Sprintf("ejected (%s, %v left)", e.Ejection.Cause, rounded(e.Ejection.Left))
	}
	return dash(flags)
}

func rounded(seconds float64) time.Duration {
	d := time.Duration(seconds * float64(time.Second))
	if d > time.Second {
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}

const breakerHead = "BREAKER\tLEFT\tOPENED\tREFUSED\tFALLBACKS"

// breakerCells are the columns of breakerHead.
func breakerCells(b *BreakerStatus) string {
	if b == nil {
		return "-\t-\t-\t-\t-"
	}
	left := "-"
	if b.Left > 0 {
		left = rounded(b.Left).String()
	}
	return fmt.Sprintf("%s\t%s\t%d\t%d\t%d", cell(b.State), left, b.Opened, b.Refused, b.Fallbacks)
}

// printResilience tells of upstreams that have a breaker or a bound on requests under way.
func printResilience(w io.Writer, upstreams []UpstreamStatus) {
	for i, head := 0, true; i < len(upstreams); i++ {
		u := &upstreams[i]
		if u.Breaker == nil && u.Concurrency == nil {
			continue
		}
		if head {
			_, _ = fmt.Fprintln(w, "\nUPSTREAM\t"+breakerHead+"\tLIMIT\tIN FLIGHT\tLEAST LATENCY")
			head = false
		}
		limit, flight, least := "-", "-", "-"
		if c := u.Concurrency; c != nil {
			limit, flight = strconv.Itoa(c.Limit), strconv.Itoa(c.InFlight)
			if c.Least > 0 {
				least = time.Duration(c.Least * float64(time.Second)).Round(time.Microsecond).String()
			}
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", cell(u.Name), breakerCells(u.Breaker), limit, flight, least)
	}
}

// printRouteBreakers tells of routes that have a breaker.
func printRouteBreakers(w io.Writer, routes []RouteStatus) {
	for i, head := 0, true; i < len(routes); i++ {
		r := &routes[i]
		if r.Breaker == nil {
			continue
		}
		if head {
			_, _ = fmt.Fprintln(w, "\nROUTE\t"+breakerHead)
			head = false
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\n", cell(r.Name), breakerCells(r.Breaker))
	}
}
