package core

// Method is the id of a request method; the text of MethodOther is in the head.
type Method uint8

const (
	MethodOther Method = iota
	MethodGet
	MethodHead
	MethodPost
	MethodPut
	MethodDelete
	MethodConnect
	MethodOptions
	MethodTrace
	MethodPatch
)

var methodNames = [...]string{"", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

// LookupMethod gives the id of a method; methods are case-sensitive (RFC 9110, 9.1).
func LookupMethod(b []byte) Method {
	for m := MethodGet; int(m) < len(methodNames); m++ {
		if string(b) == methodNames[m] {
			return m
		}
	}
	return MethodOther
}

// Idempotent says whether a request with this method may be sent again by itself (RFC 9110, 9.2.2).
func (m Method) Idempotent() bool {
	switch m {
	case MethodGet, MethodHead, MethodPut, MethodDelete, MethodOptions, MethodTrace:
		return true
	}
	return false
}

// HTTP2Preface is how a client begins an HTTP/2 connection (RFC 9113, 3.4). Every HTTP/1.1 request that begins so is malformed.
const HTTP2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Message is a request or a response in the one form that all protocols share. Byte slices taken from it are valid
// until the message is edited, received anew or reset.
type Message struct {
	Header

	// Of a request. Method, target and host are set by the parser; Path and Query by NormalizeTarget.
	Method     Method
	MethodText Span
	Target     Span   // as received
	Authority  Span   // of an absolute-form or authority-form target
	HostSpan   Span   // value of Host, which agrees with Authority
	Path       []byte // normalised: what is matched is what is forwarded
	Query      []byte // without the "?"; nil when the target has none, empty after a bare "?"
	Private    bool   // a credential stands in the query as it was received: it is not logged

	// Of a response.
	Status int
	Reason Span

	// Framing and connection options, as the parser found them (RFC 9112, 6 and 9).
	HTTP10        bool
	HTTP2         bool   // it came over HTTP/2; neither: HTTP/1.1
	Chunked       bool   // the body ends by its own framing
	ContentLength int64  // -1: none given
	Close         bool   // the sender closes after this message
	KeepAlive     bool   // HTTP/1.0: the sender asks to go on
	GRPC          bool   // a gRPC call over HTTP/2
	Upgrade       bool   // Connection: upgrade, with an Upgrade field
	Protocol      []byte // what the connection is to become after this message, or becomes; nil: nothing else
	Expect100     bool   // Expect: 100-continue

	Body    Body   // nil: no body
	Trailer []byte // lines with CRLF after a chunked body, checked and without forbidden fields; set when the body has ended

	pathBuf []byte // holds Path when it differs from what was received
}

// Reset prepares m for the next message and keeps its memory.
func (m *Message) Reset() {
	h, path := m.Header, m.pathBuf[:0]
	h.Reset()
	*m = Message{} // in place: a literal of what is kept would be made on the stack, and copied
	m.Header, m.ContentLength, m.pathBuf = h, -1, path
}

// Version is the protocol's version that m came with: 1.0, 1.1 or 2.0.
func (m *Message) Version() string {
	switch {
	case m.HTTP2:
		return "2.0"
	case m.HTTP10:
		return "1.0"
	}
	return "1.1"
}

// AsksTunnel says whether the request is for a tunnel: CONNECT, or for another protocol. Then it has no body.
func (m *Message) AsksTunnel() bool { return m.Protocol != nil || m.Method == MethodConnect }

// MethodBytes is the method's text.
func (m *Message) MethodBytes() []byte { return m.Bytes(m.MethodText) }

// Host is the authority the client asked for, with its port.
func (m *Message) Host() []byte {
	if m.Authority.End > m.Authority.Start {
		return m.Bytes(m.Authority)
	}
	return m.Bytes(m.HostSpan)
}

// SetPath replaces the path that is forwarded. p may point into the old one, which stays as it is, behind the new: so do
// the slices taken of it, such as the route's parameters.
func (m *Message) SetPath(prefix string, p []byte) {
	start := len(m.pathBuf)
	m.pathBuf = append(append(m.pathBuf, prefix...), p...)
	m.Path = m.pathBuf[start:]
}

// Body is the body of a message, taken piece by piece by one coroutine.
type Body interface {
	// Next waits for the next piece, which is valid until the next call. The last one says so; after it Next must not be
	// called. An error ends the exchange: *Error where the peer is to blame for more than leaving.
	Next() (Piece, error)
	// Ready says that Next has something at hand and will not wait.
	Ready() bool
	// Release gives back the memory of the last piece, which its taker has done with. Without it the next Next does.
	Release()
}

// Finisher is a Body that can tell that only its end is left, before it is drawn. A protocol that lets a sender send no bytes for now
// may let it send that.
type Finisher interface {
	// Finished says that Next gives an empty last piece at once; false: that is not known.
	Finished() bool
}

// Passer is a Body that passes another on, so that a protocol whose sender waits hears of that one's end.
type Passer interface {
	// Source is the other; nil: it has been passed on to its end.
	Source() Body
}

// Piece is a run of body bytes inside a larger buffer. Who got the piece may write over Buf[:Start] and Buf[End:],
// so that the framing of the next protocol stands directly before and after the data and one write takes all:
// at least PieceRoom bytes are free before it, and PieceTail after. The data is his, too: nobody needs it once it is sent.
type Piece struct {
	Buf        []byte
	Start, End int
	Last       bool // the body ends with this piece, which may be empty
}

// Bytes is the data of the piece.
func (p *Piece) Bytes() []byte { return p.Buf[p.Start:p.End] }

const (
	// PieceRoom is the room before a piece: the longest framing of a chunk or a DATA frame.
	PieceRoom = 32
	// PieceTail is the room after a piece: the end of a chunk, and the last chunk.
	PieceTail = 8
)
