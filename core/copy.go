package core

// Copy makes h what from is now, in memory of its own.
func (h *Header) Copy(from *Header) {
	h.Keep(from.head)
	h.arena = append(h.arena[:0], from.arena...)
	h.fields = append(h.fields[:0], from.fields...)
}

// CopyRequest makes m the request that from is now, less its body and what its connection was to become, in memory of its own.
func (m *Message) CopyRequest(from *Message) {
	m.Reset()
	m.Header.Copy(&from.Header)
	m.Method, m.MethodText = from.Method, from.MethodText
	m.Target, m.Authority, m.HostSpan = from.Target, from.Authority, from.HostSpan
	m.pathBuf = append(append(m.pathBuf, from.Path...), from.Query...)
	m.Path = m.pathBuf[:len(from.Path):len(from.Path)]
	if from.Query != nil {
		m.Query = m.pathBuf[len(from.Path):]
	}
	m.Private, m.HTTP10, m.HTTP2, m.GRPC = from.Private, from.HTTP10, from.HTTP2, from.GRPC
	m.Chunked, m.ContentLength = from.Chunked, from.ContentLength
}

// CopyFrom makes x another exchange with the request of from, less its body, for an attempt beside its own. What was found in the
// request, such as the parameters of its path, stays in the memory of from, which must not end before x. d is told what the client
// would be.
func (x *Exchange) CopyFrom(from *Exchange, d Downstream) {
	x.Request.CopyRequest(&from.Request)
	x.Listener, x.Snapshot, x.Client, x.Downstream = from.Listener, from.Snapshot, from.Client, d
	x.Route, x.Consumer, x.Claims, x.Params, x.Attempt = from.Route, from.Consumer, from.Claims, from.Params, from.Attempt
	x.Deadline, x.Hurried, x.RequestID = from.Deadline, from.Hurried, from.RequestID
	x.Times = Times{Start: from.Times.Start}
	x.Sent = Sent{Pool: from.Sent.Pool}
}
