package core

import (
	"strconv"
	"time"
)

// Try is how long the attempt under way may take until the head of its answer, on the loop's clock. The zero Try has no bound.
type Try struct {
	Timeout  int64 // nanoseconds; 0: none
	Deadline int64 // 0: none
}

// BeginTry begins an attempt that may take timeout nanoseconds; 0: as long as the exchange may.
func (x *Exchange) BeginTry(timeout int64) {
	x.Try = Try{Timeout: timeout}
	x.RestartTry()
}

// RestartTry makes the attempt's time begin now: the client has only now sent the last of its request.
func (x *Exchange) RestartTry() {
	if x.Try.Timeout > 0 {
		x.Try.Deadline = x.Worker.Loop.Now() + x.Try.Timeout
	}
}

// DeadlineIn is the earliest of timeout from now, in nanoseconds, and the deadlines of the exchange and of the attempt under way;
// 0 when there is none of them.
func (x *Exchange) DeadlineIn(timeout int64) int64 {
	deadline := x.Deadline
	if t := x.Try.Deadline; t != 0 && (deadline == 0 || t < deadline) {
		deadline = t
	}
	if timeout > 0 {
		if t := x.Worker.Loop.Now() + timeout; deadline == 0 || t < deadline {
			deadline = t
		}
	}
	return deadline
}

// Over says whether the exchange's time is.
func (x *Exchange) Over() bool { return x.Deadline != 0 && x.Worker.Loop.Now() >= x.Deadline }

// Overdue names the time that is over when a wait has ended with it: the exchange's, the attempt's, else that of the step itself.
func (x *Exchange) Overdue(step *Error) *Error {
	switch {
	case x.Over() && x.Hurried:
		return ErrClientDeadline
	case x.Over():
		return ErrTotalTimeout
	case x.Try.Deadline != 0 && x.Worker.Loop.Now() >= x.Try.Deadline:
		return ErrPerTryTimeout
	}
	return step
}

// Hurry lets the client's own word end the exchange, so long after its start, if that is earlier.
func (x *Exchange) Hurry(timeout time.Duration) {
	if own := x.Times.Start + int64(timeout); timeout > 0 && (x.Deadline == 0 || own < x.Deadline) {
		x.Deadline, x.Hurried = own, true
	}
}

// RequestTimeoutField is where a client says how long it will wait for the answer.
const RequestTimeoutField = "X-Request-Timeout"

const (
	maxRequestTimeoutText = 16 // bytes
	maxRequestTimeout     = 1000 * time.Hour
)

// RequestTimeout reads X-Request-Timeout: seconds with at most nine decimals, or whole milliseconds such as 500ms. It is 0 if there
// is none; false: it is malformed, no time at all, or given twice.
func (h *Header) RequestTimeout() (time.Duration, bool) {
	var text []byte
	n := 0
	h.All(func(id FieldID, name, value []byte) bool {
		if id == FieldOther && EqualFold(name, RequestTimeoutField) {
			text = value
			n++
		}
		return true
	})
	if n == 0 {
		return 0, true
	}
	if n > 1 || len(text) == 0 || len(text) > maxRequestTimeoutText {
		return 0, false
	}
	d, ok := parseRequestTimeout(text)
	return min(d, maxRequestTimeout), ok && d > 0
}

// parseRequestTimeout has at most sixteen digits to read: more than a Duration holds saturates.
func parseRequestTimeout(text []byte) (time.Duration, bool) {
	unit, decimals := time.Second, true
	if n := len(text); n > 2 && string(text[n-2:]) == "ms" {
		text, unit, decimals = text[:n-2], time.Millisecond, false
	}
	i := 0
	whole := int64(0)
	for ; i < len(text) && '0' <= text[i] && text[i] <= '9'; i++ {
		whole = whole*10 + int64(text[i]-'0')
	}
	if i == 0 {
		return 0, false
	}
	d := time.Duration(min(whole, int64(maxRequestTimeout/unit))) * unit
	if i == len(text) {
		return d, true
	}
	rest := text[i+1:]
	if text[i] != '.' || !decimals || len(rest) == 0 || len(rest) > 9 {
		return 0, false
	}
	for place := time.Second / 10; len(rest) > 0; rest, place = rest[1:], place/10 {
		if rest[0] < '0' || rest[0] > '9' {
			return 0, false
		}
		d += time.Duration(rest[0]-'0') * place
	}
	return d, true
}

// TellDeadline puts what is left of the exchange's time into the request, in the place of what the client said: as Grpc-Timeout of a
// gRPC call, else as X-Request-Timeout. It is rounded up to a millisecond, and at least one. Without a deadline nothing is said.
func (x *Exchange) TellDeadline() {
	if x.Deadline == 0 {
		return
	}
	m := &x.Request
	left := max((x.Deadline-x.Worker.Loop.Now()+int64(time.Millisecond)-1)/int64(time.Millisecond), 1)
	if m.GRPC {
		const name = "grpc-timeout"
		m.RemoveName(name)
		line := m.Begin(name)
		if left < 1e8 { // eight digits
			line.SetBuffer(append(strconv.AppendInt(line.Buffer(), left, 10), 'm'))
		} else {
			line.SetBuffer(append(strconv.AppendInt(line.Buffer(), min((left+999)/1000, 1e8-1), 10), 'S'))
		}
		line.End(FieldOther)
		return
	}
	m.RemoveName(RequestTimeoutField)
	line := m.Begin(RequestTimeoutField)
	line.SetBuffer(append(strconv.AppendInt(line.Buffer(), left, 10), "ms"...))
	line.End(FieldOther)
}
