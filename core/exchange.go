package core

import (
	"net/netip"
	"time"

	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/lb"
)

// Exchange is one request and its response. One coroutine owns it; Worker.End makes it ready for the next, so nothing
// may keep it or a []byte taken from it.
type Exchange struct {
	Request, Response Message

	Worker     *Worker    // of the loop that serves the exchange
	Listener   *Listener  // as configured when the request arrived
	Snapshot   *Snapshot  // loaded once: one request sees one configuration
	Client     Client     // filled by the connection and the listener's real-ip step
	Downstream Downstream // the client's side

	Route    *Route
	Consumer *Consumer   // who has proved who he is, by a policy of the route; nil: nobody has
	Refused  *Consumer   // whom a genuine credential names that was refused for what it says, or withdrawn: for the access log alone; nil: nobody
	Claims   *ClaimTexts // of the token by which he proved it; nil: it was not by a token, or nobody asks for any
	Params   []Param     // of the route's path, in order
	Attempt  lb.Attempt  // endpoints that were tried
	Upstream Upstream    // the exchange's upstream side, by whoever answers
	Hold     EndPolicy   // is told when all is over, a tunnel too, by what of what is bounded the exchange has taken; nil: nothing
	Deadline int64       // on the loop's clock; 0: none
	Hurried  bool        // the deadline is what the client asked for
	Try      Try         // bounds of the attempt under way
	Err      *Error      // what failed, on whose side, and whether another endpoint may be tried
	Trial    EndPolicy   // is told when the answer has been sent or given up, and a tunnel begins, by whoever answers; nil: nobody

	BodyLimit   int64    // bytes of the request body; 0: none
	ReplayLimit int      // bytes of a request body that are kept for a second attempt
	KeepBody    KeepBody // whether they are
	Uploading   bool     // the request body is on its way beside the answer
	Moved       int64    // when anything of either body last came, on the loop's clock, as far as the protocol tells
	Passed      bool     // the client's TLS was passed through: there is no request, and bodies are what passed either way

	Times Times
	Sent  Sent

	RequestID []byte

	local    localBody  // body of an answer that was made here
	replay   replayBody // of the request, for a second attempt
	progress progress
	idText   [32]byte
	params   [8]Param

	clientText [64]byte // holds Client.Text after SetClient
}

// Param is the value that a {name} of the route's path took.
type Param struct {
	Name  string
	Value []byte // part of Request.Path
}

// Client is who sent the request.
type Client struct {
	Peer    netip.AddrPort // of the connection, after a PROXY header; zero for a unix socket
	Addr    netip.Addr     // the client behind trusted proxies, else the peer
	Text    []byte         // Addr as text
	Via     []byte         // the peer's address as text
	Country string         // of Addr, two capitals (ISO 3166-1); "": it is not known, or no policy has looked for it
	Trusted bool           // the peer is a proxy whose forwarding headers are believed
	TLS     *TLS           // nil: the connection is not encrypted
	Conn    *loop.Conn     // the connection below, which others may use too; for its identity and its addresses
}

// Origin is what a connection shows of the client behind it.
type Origin struct {
	Peer netip.AddrPort // who connected, or whom the PROXY header named; zero for a unix socket
	TLS  *TLS           // nil: not encrypted
	Conn *loop.Conn
	text []byte // Peer's address, once it was asked for
}

// Identify tells x of its client. A trusted proxy may say more later.
func (o *Origin) Identify(x *Exchange) {
	if o.text == nil && o.Peer.IsValid() {
		o.text = o.Peer.Addr().AppendTo(nil)
	}
	x.Client = Client{Peer: o.Peer, Addr: o.Peer.Addr(), Text: o.text, Via: o.text, TLS: o.TLS, Conn: o.Conn}
}

// Times are instants of an exchange on the loop's clock, in nanoseconds; 0: not reached. What lies between Sent and Head
// is the upstream's time, the rest of Start to End the gateway's and the client's.
type Times struct {
	Start    int64 // the loop saw the first byte of the request
	Admitted int64 // the upstream took the exchange in, where that is bounded
	Sent     int64 // the request, or what there was of it, was handed to the kernel for the upstream
	Head     int64 // the loop saw the first byte of the response
	Done     int64 // the loop saw the last byte of the response
	End      int64 // the response was handed to the kernel for the client
}

// Sent counts what passed the gateway.
type Sent struct {
	RequestBody  int64 // bytes of body received from the client
	ResponseHead int64 // bytes of head sent to the client
	ResponseBody int64 // bytes of body sent to the client
	Retries      int
	RetryCause   string       // why the last of them was made, such as "reset"; "": there was none
	Hedged       bool         // an attempt was made beside the first
	HedgeWon     bool         // and its answer is the one that counts
	RetryDenied  string       // why one that the policy wants was not made, such as "budget"
	Endpoint     *lb.Endpoint // of the last attempt
	Pool         *Pool        // of the last attempt
}

// Downstream is the client's side of an exchange: an HTTP/1.1 connection, an HTTP/2 stream.
type Downstream interface {
	// Interim sends x.Response, a 1xx head, at once.
	Interim(x *Exchange) *Error
	// Respond sends x.Response, the body drawn from Response.Body as fast as the client takes it.
	Respond(x *Exchange) *Error
	// Conn is the connection below, for tunnels and to learn that the client has gone. nil where there is none of its own: then the
	// Downstream is a Stream.
	Conn() *loop.Conn
	// Buffered is what the client sent after the request's head and body, for the start of a tunnel.
	Buffered() []byte
}

// Stream is a side of an exchange that shares its connection with others, and can become one end of a tunnel.
type Stream interface {
	// OpenTunnel prepares for bytes both ways. Each wait ends after idle.
	OpenTunnel(idle time.Duration)
	// Receive gives what the peer has sent, and waits for it: loop.ErrTimeout when nothing comes, io.EOF after its end. The bytes
	// are valid until Release.
	Receive() ([]byte, error)
	Release()
	// Send sends bytes, CloseSend the end of them.
	Send(p []byte) *Error
	CloseSend() *Error
	// Cancel ends it, both ways.
	Cancel()
}

// Upstream is the upstream's side of an exchange while one is under way.
type Upstream interface {
	// Tunnel relays between client and upstream after an answer that opens a tunnel, until it ends.
	Tunnel(x *Exchange)
	// Finish ends the attempt: the connection goes back to its pool if the exchange left it clean, else it is closed.
	Finish(x *Exchange)
	// Abandon closes the connection of an exchange that ended in a panic.
	Abandon()
}

// Pool names the upstream of an attempt for those who observe it.
type Pool struct {
	Name   string
	Metric int
}

// reset makes x ready for the next request and keeps its memory.
func (x *Exchange) reset() {
	x.Request.Reset()
	x.Response.Reset()
	x.Listener, x.Snapshot, x.Downstream = nil, nil, nil
	x.Client = Client{}
	x.Route, x.Consumer, x.Refused, x.Claims, x.Params, x.Upstream, x.Hold, x.Trial = nil, nil, nil, nil, nil, nil, nil, nil
	x.Attempt = lb.Attempt{}
	x.Try = Try{}
	x.Deadline, x.Hurried, x.Err = 0, false, nil
	x.BodyLimit, x.ReplayLimit, x.KeepBody, x.Uploading, x.Moved, x.Passed = 0, 0, KeepNot, false, 0, false
	x.Times = Times{}
	x.Sent = Sent{}
	x.RequestID = nil
	x.local.text = ""
	x.progress.reset()
	x.replay.reset()
}

// SetClient names the client behind trusted proxies. Its text is kept in x and needs no memory.
func (x *Exchange) SetClient(a netip.Addr) {
	x.Client.Addr, x.Client.Text = a, a.AppendTo(x.clientText[:0])
}

// OpensTunnel says whether the answer turns the connection into a tunnel.
func (x *Exchange) OpensTunnel() bool {
	return x.Response.Status == 101 || x.Request.Method == MethodConnect && x.Response.Status/100 == 2
}

// AddParam notes the value of a path parameter. Past eight it allocates.
func (x *Exchange) AddParam(name string, value []byte) {
	if x.Params == nil {
		x.Params = x.params[:0]
	}
	x.Params = append(x.Params, Param{name, value})
}

// Param is the value of a path parameter, nil when the route has none of that name.
func (x *Exchange) Param(name string) []byte {
	for i := range x.Params {
		if x.Params[i].Name == name {
			return x.Params[i].Value
		}
	}
	return nil
}
