package observe

import (
	"crypto/tls"
	"net/netip"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// maxField bounds what of a text that a client chose goes into a line, in bytes.
const maxField = 2048

// lineClock writes instants. The date is made once a second.
type lineClock struct {
	second int64
	text   [len("2006-01-02T15:04:05")]byte
}

// append writes an instant of Unix time, in nanoseconds, as RFC 3339 with milliseconds in UTC.
func (c *lineClock) append(dst []byte, at int64) []byte {
	s := at / int64(time.Second)
	if s != c.second {
		c.second = s
		time.Unix(s, 0).UTC().AppendFormat(c.text[:0], "2006-01-02T15:04:05")
	}
	ms := at % int64(time.Second) / int64(time.Millisecond)
	return append(append(dst, c.text[:]...), '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}

// appendLine writes x as one line of JSON. What is not known or empty is left out. timestamp is the request's start;
// path and query are as the client sent them; bytes_sent counts head and body, bytes_received the body.
func appendLine(dst []byte, x *core.Exchange, t *times, clock *lineClock) []byte {
	m := &x.Request
	dst = clock.append(append(dst, `{"timestamp":"`...), x.Worker.Loop.TimeAt(x.Times.Start))
	dst = append(dst, '"')
	dst = appendBytes(dst, `,"request_id":"`, x.RequestID)
	dst = appendClient(dst, &x.Client)
	if x.Listener != nil {
		dst = appendString(dst, `,"listener":"`, x.Listener.Name)
	}
	dst = appendBytes(dst, `,"method":"`, m.MethodBytes())
	dst = appendBytes(dst, `,"host":"`, m.Host())
	path, query := splitTarget(m.Bytes(m.Target))
	dst = appendBytes(dst, `,"path":"`, path)
	if m.Private {
		query = hidden
	}
	dst = appendBytes(dst, `,"query":"`, query)
	if len(path) > 0 {
		dst = append(dst, `,"protocol":"HTTP/`...)
		dst = append(append(dst, m.Version()...), '"')
	}
	if x.Passed {
		dst = append(dst, `,"protocol":"TLS"`...)
	}
	if s := x.Client.TLS; s != nil {
		if s.Version != 0 {
			dst = appendString(dst, `,"tls_version":"`, tlsVersion(s.Version))
		}
		dst = appendString(dst, `,"server_name":"`, s.ServerName)
	}
	dst = strconv.AppendInt(append(dst, `,"status":`...), int64(t.status), 10)
	if m.GRPC {
		dst = appendBytes(dst, `,"grpc_status":"`, x.GRPCStatus())
	}
	if x.Err != nil {
		dst = appendString(dst, `,"reason":"`, x.Err.Reason)
		dst = appendString(dst, `,"detail":"`, x.Err.Detail)
	}
	if x.Route != nil {
		dst = appendString(dst, `,"route":"`, x.Route.Name)
	}
	who := x.Consumer
	if who == nil && x.Err != nil {
		who = x.Refused
	}
	if who != nil {
		dst = appendString(dst, `,"consumer":"`, who.Name)
		dst = appendString(dst, `,"key_id":"`, who.KeyID)
	}
	if x.Sent.Pool != nil {
		dst = appendString(dst, `,"upstream":"`, x.Sent.Pool.Name)
		if x.Sent.Endpoint != nil {
			dst = appendString(dst, `,"endpoint":"`, x.Sent.Endpoint.Address)
		}
	}
	dst = appendSeconds(append(dst, `,"latency":`...), t.request)
	if t.upstream >= 0 {
		dst = appendSeconds(append(dst, `,"upstream_latency":`...), t.upstream)
	}
	dst = appendSeconds(append(dst, `,"gateway_latency":`...), t.gateway)
	dst = strconv.AppendInt(append(dst, `,"bytes_sent":`...), x.Sent.ResponseHead+x.Sent.ResponseBody, 10)
	dst = strconv.AppendInt(append(dst, `,"bytes_received":`...), x.Sent.RequestBody, 10)
	if x.Sent.Retries > 0 {
		dst = strconv.AppendInt(append(dst, `,"retries":`...), int64(x.Sent.Retries), 10)
		dst = appendString(dst, `,"retry_cause":"`, x.Sent.RetryCause)
	}
	dst = appendString(dst, `,"retry_denied":"`, x.Sent.RetryDenied)
	switch {
	case x.Sent.HedgeWon:
		dst = append(dst, `,"hedge":"won"`...)
	case x.Sent.Hedged:
		dst = append(dst, `,"hedge":"lost"`...)
	}
	dst = appendBytes(dst, `,"user_agent":"`, m.Get(core.FieldUserAgent))
	dst = appendBytes(dst, `,"referer":"`, m.Get(core.FieldReferer))
	return append(dst, '}', '\n')
}

// hidden stands for what is a secret, or holds one.
var hidden = []byte("***")

// tlsVersion names what may have been negotiated: nothing older is spoken.
func tlsVersion(v uint16) string {
	if v == tls.VersionTLS13 {
		return "1.3"
	}
	return "1.2"
}

// appendClient writes remote_addr, the client itself, its country where a policy has looked for it, and peer, whose connection it is.
func appendClient(dst []byte, c *core.Client) []byte {
	if len(c.Text) > 0 {
		dst = appendBytes(dst, `,"remote_addr":"`, c.Text)
	}
	dst = appendString(dst, `,"country":"`, c.Country)
	if c.Peer == (netip.AddrPort{}) {
		return append(dst, `,"peer":"unix"`...)
	}
	dst = append(dst, `,"peer":"`...)
	if len(c.Via) == 0 || c.Peer.Addr().Is6() {
		return append(c.Peer.AppendTo(dst), '"')
	}
	dst = append(append(dst, c.Via...), ':')
	return append(strconv.AppendUint(dst, uint64(c.Peer.Port()), 10), '"')
}

func splitTarget(target []byte) (path, query []byte) {
	for i, c := range target {
		if c == '?' {
			return target[:i], target[i+1:]
		}
	}
	return target, nil
}

// appendSeconds writes nanoseconds as seconds with six digits after the point.
func appendSeconds(dst []byte, ns int64) []byte {
	us := ns / 1000
	dst = append(strconv.AppendInt(dst, us/1e6, 10), '.')
	for us, unit := us%1e6, int64(1e5); unit > 0; unit /= 10 {
		dst = append(dst, byte('0'+us/unit%10))
	}
	return dst
}
