package core

// CopyFrom makes x another exchange with the request of from, for an attempt beside its own. It shares the memory of the request's
// head and path, which must stay untouched until x ends, and has no body. d is told what the client would be.
func (x *Exchange) CopyFrom(from *Exchange, d Downstream) {
	m, o := &x.Request, &from.Request
	fields, arena, own, path := append(m.fields[:0], o.fields...), append(m.arena[:0], o.arena...), m.own, m.pathBuf[:0]
	*m = *o
	m.fields, m.arena, m.own, m.pathBuf, m.Body = fields, arena, own, path, nil
	x.Listener, x.Snapshot, x.Client, x.Downstream = from.Listener, from.Snapshot, from.Client, d
	x.Route, x.Consumer, x.Params, x.Attempt = from.Route, from.Consumer, from.Params, from.Attempt
	x.Deadline, x.Hurried, x.RequestID = from.Deadline, from.Hurried, from.RequestID
	x.Times = Times{Start: from.Times.Start}
	x.Sent = Sent{Pool: from.Sent.Pool}
}
