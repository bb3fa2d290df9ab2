package http1

import (
	"strconv"

	"github.com/sluice-gateway/sluice/core"
)

// appendRequest appends the head of a request as an upstream gets it.
func appendRequest(dst []byte, m *core.Message) []byte {
	dst = append(dst, m.MethodBytes()...)
	dst = append(dst, ' ')
	if m.Method == core.MethodConnect {
		dst = append(dst, m.Host()...)
	} else {
		dst = append(dst, m.Path...)
		if m.Query != nil {
			dst = append(dst, '?')
			dst = append(dst, m.Query...)
		}
	}
	dst = append(dst, " HTTP/1.1\r\n"...)
	dst = m.AppendLines(dst)
	if m.Protocol != nil {
		dst = appendUpgrade(dst, m.Protocol)
	}
	if m.Chunked {
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	} else if m.ContentLength >= 0 && !m.Has(core.FieldContentLength) {
		dst = appendLength(dst, m.ContentLength)
	}
	return append(dst, "\r\n"...)
}

// framing is how the end of an answer is shown to the client.
type framing uint8

const (
	framingNone    framing = iota // no body, whatever the fields say
	framingLength                 // Content-Length
	framingChunked                // chunked
	framingClose                  // the end of the connection
)

// appendResponse appends the head of m as a client gets it.
func appendResponse(dst []byte, m *core.Message, f framing, connection string) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendUint(dst, uint64(m.Status), 10)
	dst = append(dst, ' ')
	if m.Reason.End > m.Reason.Start {
		dst = append(dst, m.Bytes(m.Reason)...)
	} else {
		dst = append(dst, reasonPhrase(m.Status)...)
	}
	dst = append(dst, "\r\n"...)
	if f == framingChunked {
		m.Remove(core.FieldContentLength)
	}
	dst = m.AppendLines(dst)
	switch {
	case f == framingChunked, f == framingNone && m.Chunked: // the latter: what GET would have got (RFC 9112, 6.1)
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case m.ContentLength >= 0 && f != framingClose && !m.Has(core.FieldContentLength):
		dst = appendLength(dst, m.ContentLength)
	}
	dst = append(dst, connection...)
	return append(dst, "\r\n"...)
}

func appendLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, n, 10)
	return append(dst, "\r\n"...)
}

func appendUpgrade(dst, protocol []byte) []byte {
	dst = append(dst, "Connection: Upgrade\r\nUpgrade: "...)
	dst = append(dst, protocol...)
	return append(dst, "\r\n"...)
}

// frameChunk puts the framing of a chunk around a piece, in the room that every piece has: start and end are the whole in
// its buffer. A piece without data makes no chunk. The last one is followed by the last chunk if end is wanted.
func frameChunk(p core.Piece, end bool) (int, int) {
	start, out := p.Start, p.Buf[:p.End]
	if p.End > p.Start {
		var size [18]byte
		b := append(strconv.AppendUint(size[:0], uint64(p.End-p.Start), 16), "\r\n"...)
		start -= copy(p.Buf[start-len(b):], b)
		out = append(out, "\r\n"...)
	}
	if p.Last && end {
		out = append(out, "0\r\n\r\n"...)
	}
	return start, len(out)
}

// appendTrailer appends the last chunk with a trailer section.
func appendTrailer(dst, trailer []byte) []byte {
	dst = append(dst, "0\r\n"...)
	dst = append(dst, trailer...)
	return append(dst, "\r\n"...)
}

// reasonPhrase is the text of RFC 9110, 15, for an answer that came without one.
func reasonPhrase(status int) string {
	if status >= 100 && status < len(reasons) && reasons[status] != "" {
		return reasons[status]
	}
	return "Status"
}

var reasons = [...]string{
	100: "Continue", 101: "Switching Protocols", 103: "Early Hints",
	200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
	205: "Reset Content", 206: "Partial Content",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
	307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
	409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large",
	414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed",
	421: "Misdirected Request", 422: "Unprocessable Content", 425: "Too Early", 426: "Upgrade Required",
	428: "Precondition Required", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}
