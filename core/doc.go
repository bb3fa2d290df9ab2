// Package core is the path of a request through the gateway, and the vocabulary in which every stage of it speaks: Exchange,
// Message, Route, Chain, Snapshot, Error. TERMS.md says what the words mean, THREATS.md what the gateway holds out against.
// Folders below are the stages; they import core and never one another.
//
// # The life of a request
//
// Loop. At the start, core/server makes one loop.Loop for each processor, and for each a Worker, an http1.Server, an
// http2.Server and, for each listener, a listen.Port. Of all these only their own loop touches them, so that nothing on the path
// takes a lock.
//
// Listen. A loop has its own socket for each TCP address (SO_REUSEPORT: the kernel spreads connections). When a client connects,
// Port.accepted counts it against the listener's caps (and refuses it while memory is short: listen.Shed), reads the PROXY
// header where one is required, makes the TLS handshake (Conn.SecureServer: from then on the connection reads and writes through
// crypto/tls, and nobody else notices), and asks the listen.Protocol, http1.Server.NewConn or http2.Server.NewConn, for the
// connection's handler. Then the connection is idle: it has neither a coroutine nor a buffer until its first byte comes. Where
// TLS may be passed through, tlsConn.sort looks at the server name first (tls.ServerName), and upstream.Passthrough makes a
// passage of a connection that is not for us: the observer sees it once it has ended, and the rest of this story is not its.
//
// Receive. The first byte makes the connection an arrival, of which the loop begins a few each turn, so that what is under way
// is finished first. It runs the handler's Serve in a coroutine: plain code that yields to the loop wherever it waits. receive
// reads into a buffer borrowed from the loop, ParseRequest reads the head in one pass into a Message and refuses what two
// parties could read in two ways. exchange.begin takes the buffer over, names the client and removes the fields that end here. A
// head that is wrong or late goes to Worker.Refuse, every other to Worker.Serve. Both are the Gateway's, so that a refusal is
// answered and observed like any answer.
//
// With HTTP/2 the handler reads frames while there are any and is idle again, however many streams are open: each is a task of
// its own from its HEADERS on. Decoder.DecodeRequest leaves the same Message as ParseRequest, so that nothing behind it knows
// the protocol; http2.serverStream is the exchange's Downstream and the body of its request. What the streams of a turn have to
// send gathers in the connection's output and leaves in one write.
//
// Admit, route, chain. Gateway.Serve loads the Snapshot, once: a reload while the request is under way is not its business.
// Exchange.admit checks what no route decides and makes the normal form of the path, which from then on is what is matched and
// what is forwarded. The listener's steps run (Listener.Before: listen.RealIP, which finds the client behind trusted proxies;
// the answer to an authority's challenge, which alone may wait; the redirect to another listener). Exchange.route asks the
// Router, a route.Table, for the most specific Route, checks the client's certificate where the route wants one and the length
// of the body, and gives the request its id. The route's Chain runs: each step continues, or answers in the action's place. A
// step may park the task, as Exchange.Delay does, or Calls.Ask, by which forward and introspect put a question to a service
// beside the loop, in Await; one that may block or burn CPU (BlockingPolicy) runs in Await as a whole, on a goroutine of its
// own. Who the client has proved to be is left in Exchange.Consumer and Exchange.Claims for the steps behind. A limit takes of
// buckets of the node, or of what the node has of the cluster's ahead of need (limits.Cluster); in mode strict it waits for
// Redis in Await, for a bounded time.
//
// Answer. The route's Action leaves an answer in Exchange.Response: route.Respond and route.Redirect make it here,
// upstream.Proxy asks an endpoint. Proxy.Answer asks the route's breaker, has Proxy.choose find the upstream (a Canary takes its
// share before the weights of the Split are asked), and asks that one's breaker (Breaker.enter) and bounds (Admission.enter):
// who may not pass is answered here, or by a fallback. Proxy.exchange makes the plan of the attempts, with the deadline
// (Proxy.plan), finds the affinity key, tells the upstream who the client is (forward), shows the request to the Mirror, whose
// copies leave in tasks of their own, and watches the client's connection, so that every wait ends when the client leaves. Then
// share.try makes attempts: IdentityToken.tell gives the request a token that says who the consumer is, find asks this loop's
// Picker for an endpoint, whose Load counts the attempt until its answer has ended, and whose Watch hears then what it came to
// (flight.land); connect takes an idle connection of this loop, the one used last, or dials one, or waits in the queue while all
// that may be open are in use; to an endpoint that speaks HTTP/2 it takes a place in a connection that is shared (Mux). The
// transport's Do, http1.Client.Do or http2.ClientStream.Do, sends the request and waits for the head of the response. What there
// is of the body leaves with the head, the rest in a task of its own, so that an early answer is heard. An attempt that failed,
// or was answered with a status that is not passed on, is followed by another if tries.again says so: the RetryPolicy wants it,
// the request is unharmed or may be executed twice, its body is at hand, and deadline and budget allow it. What came is dropped
// then, the task waits (tries.pause), and another endpoint is asked if there is one. Where a hedge is configured a second
// attempt may be made beside the first, once all of the request is at hand, by a task with a copy of the exchange (hedge.run).
//
// Respond. Gateway.respond runs the response half of the chain in reverse and hands the exchange to its Downstream, the client's
// connection: Respond frames the body for this client and draws it piece by piece from Response.Body, as fast as the client
// takes it. Head and first piece leave in one write. If the upstream breaks off before anything was sent the client is told;
// later its connection ends short of the announced end, so that a truncated answer never looks whole.
//
// Tunnel, Finish. A Canary hears how the exchange went. After a 101, or a CONNECT that succeeded, Upstream.Tunnel relays bytes
// both ways until both have ended, between connections or streams (core.Stream); those of a bulk transfer between connections
// stay inside the kernel (Loop.Splice). Then Upstream.Finish gives the connection back to the pool if the exchange left it
// clean, else closes it. An idle one that says anything is closed, for its bytes are nobody's answer. What the exchange has
// taken of what is bounded is given back (Hold), and the policies that were reached hear that it is over (EndPolicy); both also
// after a panic.
//
// Observe. The Observer sees the exchange last: observe.Observer adds to counters of this loop, writes the access log's line
// into the loop's batch, and tells the story of a route that is being debugged. Worker.End takes the exchange back; nothing may
// keep it or its bytes. exchange.finish brings the connection to its next request, closes it, or lingers so that the client can
// read a last answer.
//
// # Failing
//
// Whatever fails on the way is an *Error, made once at start: it says which status and reason the client is told, whose fault it
// was, and whether another attempt may follow. Exchange.Fail makes the answer of it. A panic is answered with 500 if nothing was
// yet (Worker.Apologize), and ends one connection, or one stream of HTTP/2.
//
// # Change
//
// core/config reads the file into plain data or tells every problem in it; core/compile makes a Snapshot of that, while the old
// one serves; Gateway.Switch puts it in force by one atomic pointer. Upstreams, their connections, the buckets of limits and all
// counters live in a registry beside the snapshots, under their names. What endpoints are to get, an lb.Set, is compiled beside
// the loops whenever weights, flags or addresses change, or slow start has its next step; each loop then gets a Picker over it,
// and one over each upstream.Subset that routes name. Addresses change by themselves where endpoints are names, which
// core/discovery asks for when their TTL has passed, or stand in a file that core/compile watches. Endpoints are asked how they
// are beside the loops, too: each upstream has a probe.Checker, whose results reach the loops as such a change, and so do
// ejections by its health.Detector, which judges at intervals, or when a Watch wakes it. Canaries are judged once a second. Keys
// of tokens (KeySource), certificates, lists of consumers and tokens of a cluster's limits are fetched ahead of need, so that no
// request waits for them but one whose key nobody knows yet.
//
// Another binary takes over by an upgrade. core/server asks it for its version and its check of the configuration, and starts
// it; core/server/handover brings it every listening socket under its name (server.socketName) and the parts of the state in
// server.stateParts. It goes through the whole start, deaf where it opens anew, until every loop accepts from each of its shares
// of the sockets, which may be more than one if there were more loops before. Only then the process before stops: its ports
// leave the kernel's queues to the successor (Port.HandOver), idle connections learn from their next answer that it was the
// last, HTTP/2 from GOAWAY, and tunnels live until the drain ends, or longer where they have a time of their own: everything else
// ends before (listen.KeepTunnels). Its last counters follow when it goes. Until the successor is ready, whatever happens to it,
// the process before has changed nothing.
//
// Where systemd has started the gateway, it is told of all this: Server.tend says when every listener accepts, and that the
// gateway lives as long as selfCheck finds so. Listening sockets that it passes or has stored are used in the place of new ones
// (Server.assignPassed, listen.Adopt), so that a restart or crash makes clients wait instead of being refused. In an upgrade
// those of the process before come first (Server.openBind); it tells systemd of its successor as its last word (Server.resign),
// and only then the successor speaks.
package core
