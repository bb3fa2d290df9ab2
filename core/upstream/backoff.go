package upstream

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// wait is how many nanoseconds the attempt waits that follows on so many that came to nothing, the last for c; false: longer than it
// may, as the answer in x says. The wait doubles each time and is drawn by lot up to that, "full jitter" (M. Brooker, Exponential
// Backoff And Jitter, 2015), so that those who failed together do not come back together.
func (r *RetryPolicy) wait(x *core.Exchange, before int, c Cause) (int64, bool) {
	wait := int64(0)
	if r.Base > 0 {
		wait = int64(r.Max)
		if before < 32 && int64(r.Base)<<before>>before == int64(r.Base) {
			wait = min(wait, int64(r.Base)<<before)
		}
		if !r.Even {
			wait = rand.Int64N(wait + 1)
		}
	}
	if r.RetryAfter == 0 || c != CauseStatus {
		return wait, true
	}
	asked, ok := retryAfter(x)
	if !ok {
		return wait, true
	}
	return max(wait, int64(asked)), asked <= r.RetryAfter
}

// maxRetryAfter is more than anybody waits.
const maxRetryAfter = 24 * time.Hour

// retryAfter is how long the answer wants a client to wait: seconds, or a date (RFC 9110, 10.2.3). false: it does not say, or not so
// that it can be understood.
func retryAfter(x *core.Exchange) (time.Duration, bool) {
	v, ok := x.Response.Lookup("retry-after")
	if !ok || len(v) == 0 || len(v) > 40 {
		return 0, false
	}
	seconds := int64(0)
	for i, c := range v {
		if c < '0' || c > '9' {
			if i > 0 {
				return 0, false
			}
			at, ok := parseDate(string(v)) // it is rare: what it costs does not matter
			return min(max(0, time.Duration(at.UnixNano()-x.Worker.Loop.Wall())), maxRetryAfter), ok
		}
		seconds = min(seconds*10+int64(c-'0'), int64(maxRetryAfter/time.Second))
	}
	return time.Duration(seconds) * time.Second, true
}

// parseDate reads a date in any of the forms that RFC 9110, 5.6.7 wants read.
func parseDate(text string) (at time.Time, ok bool) {
	for _, layout := range [...]string{"Mon, 02 Jan 2006 15:04:05 GMT", "Monday, 02-Jan-06 15:04:05 GMT", time.ANSIC} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}
