package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// GRPC asks grpc.health.v1.Health, which must say that the service is serving (github.com/grpc/grpc, doc/health-checking.md).
type GRPC struct {
	Service string // "": the server as a whole
}

// servingStatuses are the values of HealthCheckResponse.ServingStatus.
var servingStatuses = [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

const serving = 1

func (q *Question) askGRPC(ctx context.Context, conn net.Conn, e *Endpoint) *Failure {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, q.scheme()+"://"+placeholder+"/grpc.health.v1.Health/Check",
		bytes.NewReader(q.GRPC.message()))
	if err != nil {
		return wrong("cannot make request: %v", err)
	}
	request.Host = e.Host
	request.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {userAgent}}
	if deadline, ok := ctx.Deadline(); ok {
		request.Header.Set("Grpc-Timeout", strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10)+"m")
	}
	response, done, failure := q.exchange(ctx, conn, request, true)
	if failure != nil {
		return failure
	}
	defer done()
	if response.StatusCode != http.StatusOK {
		return wrong("status %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, MaxAnswer+1))
	if err != nil {
		return failed(ctx, "body", err)
	}
	if len(body) > MaxAnswer {
		return wrong("the answer is larger than %d bytes", MaxAnswer)
	}
	code := response.Trailer.Get("Grpc-Status")
	if code == "" {
		code = response.Header.Get("Grpc-Status") // an answer of trailers alone
	}
	if code != "0" {
		return wrong("gRPC status %q", clip(code))
	}
	return judgeServing(body)
}

// message is a HealthCheckRequest behind the five bytes of gRPC's framing.
func (g *GRPC) message() []byte {
	var m []byte
	if g.Service != "" {
		m = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), g.Service)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}

// judgeServing reads a HealthCheckResponse behind its framing.
func judgeServing(body []byte) *Failure {
	if len(body) < 5 || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return wrong("the answer is not one message")
	}
	status := uint64(0)
	for m := body[5:]; len(m) > 0; {
		number, kind, n := protowire.ConsumeTag(m)
		if n < 0 {
			return wrong("the message cannot be read")
		}
		m = m[n:]
		if number == 1 && kind == protowire.VarintType {
			status, n = protowire.ConsumeVarint(m)
		} else {
			n = protowire.ConsumeFieldValue(number, kind, m)
		}
		if n < 0 {
			return wrong("the message cannot be read")
		}
		m = m[n:]
	}
	switch {
	case status == serving:
		return nil
	case status < uint64(len(servingStatuses)):
		return wrong("%s", servingStatuses[status])
	}
	return wrong("serving status %d", status)
}
