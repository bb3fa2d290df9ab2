package compile

import (
	"context"
	"net/netip"
	"strings"

	envoycore "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/forward"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// extAuthz makes the policy of kind ext_authz.
func extAuthz(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) {
	a := p.ExtAuthz
	s, err := r.service(c, p.Pos, "ext_authz", &a.Service)
	if err != nil {
		return core.Step{}, err
	}
	spec := forward.Spec{Check: true, Headers: a.Headers, Body: a.Body, Text: a.BodyAs == "text", Copy: a.Copy, Hide: hidden(a.Hide), Allow: a.OnError == "allow",
		Calls: share(a.Calls, max(len(r.workers), 1))}
	return r.judged(c, name, spec, a.Cache, &checker{service: s, context: a.Context, raw: a.BodyAs == "bytes"})
}

// checker asks a service of envoy.service.auth.v3.
type checker struct {
	*service
	context map[string]string
	raw     bool // the body is sent as raw_body
}

// Begin prepares one question.
func (k *checker) Begin(q *forward.Query) core.Call[forward.Answer] {
	ctx, cancel := context.WithTimeout(context.Background(), k.timeout)
	return core.Call[forward.Answer]{Do: func() forward.Answer { return k.ask(ctx, q) }, Cancel: cancel}
}

func (k *checker) ask(ctx context.Context, q *forward.Query) forward.Answer {
	var said *auth.CheckResponse
	err := k.link.use(func(c *grpc.ClientConn) (err error) {
		said, err = auth.NewAuthorizationClient(c).Check(ctx, k.request(q))
		return err
	})
	if err != nil {
		return forward.Answer{Failed: true}
	}
	return verdict(said)
}

// request is q as the service wants it.
func (k *checker) request(q *forward.Query) *auth.CheckRequest {
	a := q.Attributes
	at := a.Target
	headers := map[string]string{":method": q.Method, ":path": text(at), ":authority": text(a.Host), ":scheme": a.Scheme}
	for _, l := range q.Lines {
		name, value := strings.ToLower(l.Name), text(l.Value)
		if before, more := headers[name]; more {
			value = before + "," + value
		}
		headers[name] = value
	}
	_, query, _ := strings.Cut(at, "?") // Path holds the query, too, as Envoy's does
	http := &auth.AttributeContext_HttpRequest{Id: text(a.ID), Method: q.Method, Headers: headers, Path: text(at), Query: text(query), Host: text(a.Host),
		Scheme: a.Scheme, Protocol: a.Protocol, Size: a.Size}
	if k.raw {
		http.RawBody = q.Body
	} else {
		http.Body = string(q.Body)
	}
	all := &auth.AttributeContext{
		Source:            &auth.AttributeContext_Peer{Address: address(a.Source), Principal: text(a.Principal), Service: a.Consumer},
		Destination:       &auth.AttributeContext_Peer{Address: address(a.Destination)},
		Request:           &auth.AttributeContext_Request{Time: &timestamppb.Timestamp{Seconds: a.Wall / 1e9, Nanos: int32(a.Wall % 1e9)}, Http: http},
		ContextExtensions: k.context,
	}
	if a.ServerName != "" {
		all.TlsSession = &auth.AttributeContext_TLSSession{Sni: a.ServerName}
	}
	return &auth.CheckRequest{Attributes: all}
}

// text is s as a field of protobuf can hold it. What is no UTF-8 becomes "!", as Envoy has it: a client must not be able to make that the
// service cannot be asked.
func text(s string) string { return strings.ToValidUTF8(s, "!") }

// address is nil for a unix socket's.
func address(a netip.AddrPort) *envoycore.Address {
	if !a.Addr().IsValid() {
		return nil
	}
	return &envoycore.Address{Address: &envoycore.Address_SocketAddress{SocketAddress: &envoycore.SocketAddress{
		Address: a.Addr().WithZone("").Unmap().String(), PortSpecifier: &envoycore.SocketAddress_PortValue{PortValue: uint32(a.Port())}}}}
}

// verdict reads an answer. One that contradicts itself, or speaks of an error, is none.
func verdict(said *auth.CheckResponse) forward.Answer {
	passes := said.GetStatus().GetCode() == int32(codes.OK)
	switch said.GetHttpResponse().(type) {
	case *auth.CheckResponse_ErrorResponse:
		return forward.Answer{Failed: true}
	case *auth.CheckResponse_DeniedResponse:
		if passes {
			return forward.Answer{Failed: true}
		}
	}
	if passes {
		return forward.Answer{Status: 200, Whole: true, Changes: changes(said.GetOkResponse())}
	}
	d := said.GetDeniedResponse()
	answer := forward.Answer{Status: int(d.GetStatus().GetCode()), Body: d.GetBody(), Whole: true}
	if answer.Status < 300 || answer.Status > 599 { // whatever it says, it does not let the request pass
		answer.Status = 403
	}
	for _, o := range d.GetHeaders() {
		answer.Lines = append(answer.Lines, field(o.GetHeader()))
	}
	if !forward.Fit(answer.Lines) || len(answer.Body) > serviceBodyBytes {
		answer.Lines, answer.Body = nil, ""
	}
	return answer
}

// changes are what ok wants; nothing where it is nil.
func changes(ok *auth.OkHttpResponse) *forward.Changes {
	c := &forward.Changes{Remove: ok.GetHeadersToRemove(), RemoveQuery: ok.GetQueryParametersToRemove()}
	for _, o := range ok.GetHeaders() {
		if beside, _ := appends(o); beside {
			c.Append = append(c.Append, field(o.GetHeader()))
		} else {
			c.Set = append(c.Set, field(o.GetHeader()))
		}
	}
	for _, o := range ok.GetResponseHeadersToAdd() {
		c.Response = append(c.Response, forward.ResponseLine{Line: field(o.GetHeader()), Where: where(o)})
	}
	for _, q := range ok.GetQueryParametersToSet() {
		c.SetQuery = append(c.SetQuery, forward.Line{Name: q.GetKey(), Value: q.GetValue()})
	}
	return c
}

// where says how a field comes into the answer: as append says, where it is given, else as append_action does, whose zero counts for
// nothing, since it cannot be told from none.
func where(o *envoycore.HeaderValueOption) forward.Where {
	switch beside, given := appends(o); {
	case beside:
		return forward.Beside
	case given:
		return forward.Instead
	}
	switch o.GetAppendAction() {
	case envoycore.HeaderValueOption_ADD_IF_ABSENT:
		return forward.IfAbsent
	case envoycore.HeaderValueOption_OVERWRITE_IF_EXISTS:
		return forward.IfPresent
	}
	return forward.Instead
}

// appends reads the older of the two ways to say so, which services go on to use.
func appends(o *envoycore.HeaderValueOption) (beside, given bool) {
	//lint:ignore SA1019 Envoy reads it too, and before append_action
	said := o.GetAppend()
	return said.GetValue(), said != nil
}

func field(h *envoycore.HeaderValue) forward.Line {
	value := h.GetValue()
	if value == "" {
		value = string(h.GetRawValue())
	}
	return forward.Line{Name: h.GetKey(), Value: value}
}
