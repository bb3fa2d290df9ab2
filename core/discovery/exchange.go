package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// udpBytes is how large an answer over UDP may be: what fits into a packet that nobody fragments (RFC 9715).
	udpBytes = 1232
	// maxStrays bounds the packets of one question that are not its answer.
	maxStrays = 1000

	typeSRV = dns.TypeSRV
)

var addressTypes = [2]uint16{dns.TypeA, dns.TypeAAAA}

// record is what is of use in an answer's record.
type record struct {
	addr netip.Addr // of A and AAAA
	srv  *dns.SRV
}

// records gives the records of a type that name has, over CNAMEs, and how long they are good.
func (r *Resolver) records(ctx context.Context, name string, kind uint16) ([]record, time.Duration, error) {
	ttl := uint32(1<<31 - 1)
	for range maxChain {
		answer, err := r.ask(ctx, name, kind)
		if err != nil {
			return nil, 0, err
		}
		records, last, least := follow(answer, name, kind)
		ttl = min(ttl, least)
		switch {
		case len(records) > 0:
			return records, time.Duration(ttl) * time.Second, nil
		case answer.Rcode == dns.RcodeNameError:
			return nil, 0, errNoName
		case last == name || authoritative(answer):
			return nil, 0, errNoRecords
		}
		name = last // the server did not go where its CNAME leads
	}
	return nil, 0, fmt.Errorf("more than %d CNAMEs", maxChain)
}

// authoritative says whether somebody vouches for there being no more than what stands in the answer (RFC 2308, 2.2).
func authoritative(m *dns.Msg) bool {
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == dns.TypeSOA {
			return true
		}
	}
	return false
}

// follow finds the records of a type that an answer has for name, at the end of its CNAMEs, that end, and the least TTL on the way.
func follow(m *dns.Msg, name string, kind uint16) (records []record, last string, ttl uint32) {
	ttl = 1<<31 - 1
	shorten := func(h *dns.RR_Header) {
		if h.Ttl > 1<<31-1 { // RFC 2181, 8
			h.Ttl = 0
		}
		ttl = min(ttl, h.Ttl)
	}
	last = name
	for range maxChain {
		next := ""
		for _, rr := range m.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || !strings.EqualFold(h.Name, last) {
				continue
			}
			switch rr := rr.(type) {
			case *dns.CNAME:
				if kind != dns.TypeCNAME && next == "" {
					shorten(h)
					next = rr.Target
				}
			case *dns.A:
				if a, ok := netip.AddrFromSlice(rr.A); ok && kind == dns.TypeA {
					shorten(h)
					records = append(records, record{addr: a.Unmap()})
				}
			case *dns.AAAA:
				if a, ok := netip.AddrFromSlice(rr.AAAA); ok && kind == dns.TypeAAAA && a.Is6() && !a.Is4In6() {
					shorten(h)
					records = append(records, record{addr: a})
				}
			case *dns.SRV:
				if kind == dns.TypeSRV {
					shorten(h)
					records = append(records, record{srv: rr})
				}
			}
		}
		if len(records) > 0 || next == "" {
			break
		}
		last = next
	}
	return records, last, ttl
}

// ask puts a question to one server after the other until one answers. Each try has an equal part of the time that is left.
func (r *Resolver) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	if _, ok := dns.IsDomainName(name); !ok {
		return nil, errNoName // a search domain made it too long
	}
	servers, attempts, most := r.system.servers()
	if len(r.settings.Servers) > 0 {
		servers = r.settings.Servers
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		panic("BUG: discovery: a question without a deadline")
	}
	var failure error
	for left := attempts * len(servers); left > 0; left-- {
		part := min(time.Until(deadline)/time.Duration(left), most)
		if part <= 0 || ctx.Err() != nil {
			break
		}
		server := servers[(attempts*len(servers)-left)%len(servers)]
		one, cancel := context.WithTimeout(ctx, part)
		answer, err := put(one, server, name, kind)
		cancel()
		if err == nil {
			return answer, nil
		}
		failure = fmt.Errorf("name server %s: %w", server, err)
	}
	if failure == nil {
		failure = context.DeadlineExceeded
	}
	return nil, failure
}

// put asks one server: over UDP, over TCP if the answer is too long for that, and without EDNS0 if it does not know that.
func put(ctx context.Context, server netip.AddrPort, name string, kind uint16) (*dns.Msg, error) {
	question := new(dns.Msg)
	question.SetQuestion(name, kind)
	question.SetEdns0(udpBytes, false)
	answer, err := exchange(ctx, "udp", server, question)
	if err == nil && answer.Truncated {
		question.Id = dns.Id()
		answer, err = exchange(ctx, "tcp", server, question)
	}
	if err == nil && (answer.Rcode == dns.RcodeFormatError || answer.Rcode == dns.RcodeNotImplemented) {
		question.Id, question.Extra = dns.Id(), nil
		if answer, err = exchange(ctx, "udp", server, question); err == nil && answer.Truncated {
			answer, err = exchange(ctx, "tcp", server, question)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case answer.Truncated:
		return nil, errors.New("the answer is truncated")
	case answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("it answers %s", rcodeText(answer.Rcode))
	case answer.Rcode == dns.RcodeSuccess && len(answer.Answer) == 0 && !answer.Authoritative && !answer.RecursionAvailable && !authoritative(answer):
		return nil, errors.New("it does not resolve for us")
	}
	return answer, nil
}

func rcodeText(code int) string {
	if text, ok := dns.RcodeToString[code]; ok {
		return text
	}
	return fmt.Sprintf("code %d", code)
}

// exchange sends a question and waits for its answer; whatever else comes is somebody's guess and passed over. Each has a socket of its
// own, and with it a port that nobody can foretell (RFC 5452, 9.2).
func exchange(ctx context.Context, network string, server netip.AddrPort, question *dns.Msg) (*dns.Msg, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	deadline, _ := ctx.Deadline()
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })()
	c := &dns.Conn{Conn: raw, UDPSize: udpBytes}
	if err := c.WriteMsg(question); err != nil {
		return nil, err
	}
	for range maxStrays {
		var head dns.Header
		packet, err := c.ReadMsgHeader(&head)
		if errors.Is(err, dns.ErrShortRead) && network == "udp" {
			continue
		}
		if err != nil {
			return nil, err
		}
		answer := new(dns.Msg)
		err = answer.Unpack(packet)
		if cut := head.Bits&(1<<9) != 0; err != nil && cut && head.Id == question.Id && network == "udp" {
			return &dns.Msg{MsgHdr: dns.MsgHdr{Truncated: true}}, nil // inside of a record
		}
		if err == nil && isAnswer(answer, question) {
			return answer, nil
		}
		if network != "udp" {
			return nil, errors.New("it answers something else")
		}
	}
	return nil, errors.New("too many packets that are no answer")
}

// isAnswer says whether m answers the question (RFC 5452, 9.1).
func isAnswer(m, question *dns.Msg) bool {
	if !m.Response || m.Id != question.Id || m.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(m.Question) == 0 {
		return m.Rcode == dns.RcodeFormatError // it could not read the question
	}
	q, want := m.Question[0], question.Question[0]
	return len(m.Question) == 1 && q.Qtype == want.Qtype && q.Qclass == want.Qclass && strings.EqualFold(q.Name, want.Name)
}
