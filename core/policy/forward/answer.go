package forward

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// line is a field that is ready to be sent.
type line struct {
	Line
	id core.FieldID
}

// outcome is what an answer means. It is immutable once it is kept.
type outcome struct {
	err      *core.Error // nil: the request passes
	change   *change     // of one that does; nil: there is none
	upstream []line      // for the request
	client   []line      // for the response; of a refusal, all of its head
	body     string      // of a refusal
	whole    bool        // body is what the service has sent
	kind     string      // media type of body
	keep     time.Duration
	until    int64 // on the wall clock
}

const (
	maxLines     = 200
	maxLineBytes = 32 << 10 // of all fields of an answer
)

// refusals are the errors of answers by their status.
var refusals = func() (all [600]core.Error) {
	for i := range all {
		all[i] = core.Error{Status: i, Reason: "forward_denied"}
	}
	return all
}()

// outcome judges an answer: 2xx lets the request pass, everything else goes to the client as it is. nil: it is no answer.
func (p *Policy) outcome(a *Answer) *outcome {
	if a.Failed || a.Status < 200 || a.Status > 599 || !Fit(a.Lines) {
		return nil
	}
	o := &outcome{}
	if a.Changes != nil && a.Status < 300 {
		if o.change = p.granted(a.Changes); o.change == nil {
			return nil
		}
	}
	cookie := false
	for _, l := range a.Lines {
		id := core.LookupField([]byte(l.Name))
		cookie = cookie || id == core.FieldSetCookie
		switch {
		case a.Status >= 300 && ofConnection(id, l.Name, a.Lines):
		case a.Status >= 300 && id == core.FieldContentType && o.kind == "":
			o.kind = l.Value
		case a.Status >= 300:
			o.client = append(o.client, line{l, id})
		default:
			if listed(p.spec.Copy, l.Name) {
				o.upstream = append(o.upstream, line{l, id})
			}
			if listed(p.spec.CopyToClient, l.Name) {
				o.client = append(o.client, line{l, id})
			}
		}
	}
	if a.Status >= 300 {
		o.err, o.body, o.whole = &refusals[a.Status], a.Body, a.Whole
	}
	if c := p.spec.Cache; c != nil && !cookie && (a.Status < 300 || a.Status == 401 || a.Status == 403) && (a.Whole || o.err == nil) {
		o.keep = lifetime(a.Lines, c.TTL)
	}
	return o
}

// deny answers as the service did. A gRPC call gets its status as always, and nobody a part of a body that was too long.
func (o *outcome) deny(x *core.Exchange) {
	if x.Request.GRPC || !o.whole {
		x.Fail(o.err)
	} else {
		x.Err = o.err
		x.Answer(o.err.Status, o.kind, o.body)
	}
	for i := range o.client {
		if l := &o.client[i]; o.whole && !x.Request.GRPC || !ofContent(l.Name) {
			addLine(&x.Response.Header, l)
		}
	}
}

func (o *outcome) bytes() int {
	n := len(o.body) + len(o.kind)
	if o.change != nil {
		n += o.change.size
	}
	for _, list := range [][]line{o.upstream, o.client} {
		for i := range list {
			n += len(list[i].Name) + len(list[i].Value) + lineCost
		}
	}
	return n
}

// Fit says whether fields can stand in a head, and are not too many.
func Fit(lines []Line) bool {
	n := 0
	for _, l := range lines {
		n += len(l.Name) + len(l.Value)
		if n > maxLineBytes || core.ScanText([]byte(l.Value), 0) != len(l.Value) || !core.IsToken([]byte(l.Name)) {
			return false
		}
	}
	return len(lines) <= maxLines
}

// connectionFields of the service's answer are about its connection to us, or about our answer.
const connectionFields core.FieldSet = 1<<core.FieldConnection | 1<<core.FieldKeepAlive | 1<<core.FieldProxyAuthenticate |
	1<<core.FieldProxyAuthorization | 1<<core.FieldProxyConnection | 1<<core.FieldTE | 1<<core.FieldTrailer | 1<<core.FieldTransferEncoding |
	1<<core.FieldUpgrade | 1<<core.FieldContentLength | 1<<core.FieldDate | 1<<core.FieldAge

// ofConnection says whether a field ends here: always, or because Connection names it (RFC 9110, 7.6.1).
func ofConnection(id core.FieldID, name string, lines []Line) bool {
	if core.Fields(id)&connectionFields != 0 && id != core.FieldOther {
		return true
	}
	return slices.ContainsFunc(lines, func(l Line) bool {
		if !strings.EqualFold(l.Name, "Connection") {
			return false
		}
		for option := range strings.SplitSeq(l.Value, ",") {
			if strings.EqualFold(strings.TrimSpace(option), name) {
				return true
			}
		}
		return false
	})
}

// ofContent says whether a field is about a body, which may be another than the service's.
func ofContent(name string) bool {
	return len(name) > len("Content-") && strings.EqualFold(name[:len("Content-")], "Content-") ||
		strings.EqualFold(name, "ETag") || strings.EqualFold(name, "Last-Modified")
}

func listed(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// lifetime is as long as is asked for, or as the answer allows if that is less (RFC 9111, 5.2.2).
func lifetime(lines []Line, ttl time.Duration) time.Duration {
	for _, l := range lines {
		if strings.EqualFold(l.Name, "Content-Encoding") {
			return 0 // of a body that another client may not understand
		}
		if !strings.EqualFold(l.Name, "Cache-Control") {
			continue
		}
		for directive := range strings.SplitSeq(l.Value, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return 0
			case "max-age":
				s, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
				if err != nil {
					return 0
				}
				ttl = min(ttl, time.Duration(s)*time.Second)
			}
		}
	}
	return ttl
}
