package core

import (
	"bytes"
	"strconv"
	"time"
)

// IsGRPC says whether a Content-Type is that of gRPC's own protocol, whatever its message format.
func IsGRPC(contentType []byte) bool {
	const name = "application/grpc"
	if len(contentType) < len(name) || !EqualFold(contentType[:len(name)], name) {
		return false
	}
	return len(contentType) == len(name) || contentType[len(name)] == '+' || contentType[len(name)] == ';'
}

// GRPCTimeout reads a Grpc-Timeout: at most eight digits and a unit (gRPC over HTTP/2, "Requests"). It is 0 if there is none;
// false: it is malformed.
func (h *Header) GRPCTimeout() (time.Duration, bool) {
	v, ok := h.Lookup("grpc-timeout")
	if !ok {
		return 0, true
	}
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	n := int64(0)
	for _, c := range v[:len(v)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	return max(time.Duration(min(n, int64(maxGRPCTimeout/unit)))*unit, 1), true
}

// maxGRPCTimeout bounds what a client can ask for: hours have eight digits, too.
const maxGRPCTimeout = 1000 * time.Hour

// Statuses of gRPC calls.
const (
	grpcCancelled         = 1
	grpcUnknown           = 2
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// GRPCStatusNamed is the status of a name in lower case, such as unavailable. The name must be one of those that the gateway
// repeats calls for.
func GRPCStatusNamed(name string) uint32 {
	switch name {
	case "cancelled":
		return grpcCancelled
	case "deadline_exceeded":
		return grpcDeadlineExceeded
	case "resource_exhausted":
		return grpcResourceExhausted
	case "internal":
		return grpcInternal
	case "unavailable":
		return grpcUnavailable
	}
	panic("BUG: no gRPC status " + name)
}

// grpcStatus is what a failure with an HTTP status means to a gRPC client (gRPC, "HTTP to gRPC Status Code Mapping"). What a client
// could not tell there from others is told apart here: a body or head that is too large, a deadline of its own, and 429. That
// mapping, and Envoy unless rate_limited_as_resource_exhausted is set, make UNAVAILABLE of 429; but this is what clients repeat
// at once, on every channel, and a limit would make more requests of those that it refuses. RESOURCE_EXHAUSTED is what gRPC
// itself says of a quota that is used up.
func (x *Exchange) grpcStatus(err *Error) int {
	if err.GRPC != 0 {
		return err.GRPC
	}
	if err.Side == SideUpstream && x.Deadline != 0 && x.Worker.Loop.Clock() >= x.Deadline {
		return grpcDeadlineExceeded // whoever noticed first: the upstream was told of it, too
	}
	switch err.Status {
	case 400:
		return grpcInternal
	case 401:
		return grpcUnauthenticated
	case 403:
		return grpcPermissionDenied
	case 404, 405:
		return grpcUnimplemented
	case 413, 429, 431:
		return grpcResourceExhausted
	case 408, 502, 503, 504:
		return grpcUnavailable
	case 500:
		return grpcInternal
	}
	return grpcUnknown
}

// GRPCFailed says that a gRPC call has ended with a status that is the server's fault: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED,
// INTERNAL, UNAVAILABLE or DATA_LOSS, as OpenTelemetry's conventions for RPC have it.
func (x *Exchange) GRPCFailed() bool {
	if !x.Request.GRPC {
		return false
	}
	switch string(x.GRPCStatus()) {
	case "2", "4", "12", "13", "14", "15":
		return true
	}
	return false
}

// failGRPC makes the answer of a failed gRPC call, which has its status in a field and no body (gRPC over HTTP/2, "Responses").
func (x *Exchange) failGRPC(err *Error) {
	m := &x.Response
	m.Reset()
	m.Status = 200
	m.Add(FieldDate, x.Worker.Date())
	m.AddName("Content-Type", []byte("application/grpc"))
	line := m.Begin("Grpc-Status")
	line.SetBuffer(strconv.AppendInt(line.Buffer(), int64(x.grpcStatus(err)), 10))
	line.End(FieldOther)
	line = m.Begin("Grpc-Message")
	line.String(err.told())
	line.End(FieldOther)
}

// GRPCStatus is the status with which a gRPC call ended, as the answer's head or trailer says; nil: it did not say.
func (x *Exchange) GRPCStatus() []byte {
	if v, ok := x.Response.Lookup("grpc-status"); ok {
		return v
	}
	const name = "grpc-status:"
	for lines := x.Response.Trailer; len(lines) > 0; {
		line, rest, _ := bytes.Cut(lines, []byte("\r\n"))
		if len(line) > len(name) && EqualFold(line[:len(name)], name) {
			return bytes.TrimSpace(line[len(name):])
		}
		lines = rest
	}
	return nil
}
