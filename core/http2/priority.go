package http2

import "github.com/sluice-gateway/sluice/core"

// priority is how a client wants what is sent to it ordered (RFC 9218, 4).
type priority struct {
	urgency     uint8 // 0..7, the most urgent first
	incremental bool  // of use piece by piece: it takes turns with others that are
}

const priorityField = "priority"

const defaultUrgency = 3 // RFC 9218, 4.1

// update gives p as the value of a Priority field changes it: a dictionary (RFC 8941, 3.2). A value that is none changes nothing, nor
// does a member of it that is unknown, of another type or out of range. said: a member of ours was there.
func (p priority) update(value []byte) (next priority, said bool) {
	d := dictionary{rest: value}
	d.skip(' ')
	next = p
	for len(d.rest) > 0 {
		key := d.key()
		if key == nil {
			return p, false
		}
		it := item{kind: itemBoolean, number: 1} // a key alone is true
		if d.is('=') {
			it = d.member()
		}
		if it.kind == itemNone || !d.parameters() || !d.separator() {
			return p, false
		}
		switch {
		case len(key) != 1:
		case key[0] == 'u' && it.kind == itemInteger && it.number >= 0 && it.number <= 7:
			next.urgency, said = uint8(it.number), true
		case key[0] == 'i' && it.kind == itemBoolean:
			next.incremental, said = it.number == 1, true
		}
	}
	return next, said
}

// before says whether t goes before o, both of which want to send: the more urgent; of those the whole ones, in the order of the
// streams; then those of use piece by piece, in turn (RFC 9218, 10).
func (t *stream) before(o *stream) bool {
	a, b := &t.priority, &o.priority
	switch {
	case a.urgency != b.urgency:
		return a.urgency < b.urgency
	case a.incremental != b.incremental:
		return b.incremental
	case a.incremental:
		return t.turn < o.turn
	}
	return t.id < o.id
}

// prioritise takes from a request how its answer is to be ordered.
func (t *serverStream) prioritise(m *core.Message) {
	if p, ok := m.Lookup(priorityField); ok {
		t.prefer(p)
	}
	t.foresaid()
	if !t.preferred {
		t.priority.incremental = m.GRPC || m.Protocol != nil // it may never end, and must not keep others from their turn
	}
}

// reprioritise takes from an answer what its origin says of it. Where nobody has said anything, one without a known end takes turns.
func (t *serverStream) reprioritise(m *core.Message) {
	if p, ok := m.Lookup(priorityField); ok {
		t.prefer(p)
	} else if !t.preferred && m.ContentLength < 0 {
		t.priority.incremental = true
	}
}

// prefer takes a Priority field of the client's, or of the origin's, who may change some of it (RFC 9218, 8).
func (t *stream) prefer(value []byte) {
	if next, said := t.priority.update(value); said {
		t.priority, t.preferred = next, true
	}
}

// maxForetold bounds the streams whose priority is known before they are opened.
const maxForetold = 8

// foretold is the priority of streams that are not open yet, in order of arrival: the place of the oldest is taken next.
type foretold struct {
	ids        [maxForetold]uint32 // 0: none
	priorities [maxForetold]priority
	next       int
}

// prioritise takes a PRIORITY_UPDATE frame, which says all: what it leaves out has its default (RFC 9218, 7).
func (c *conn) prioritise(id uint32, value []byte) {
	p, said := priority{urgency: defaultUrgency}.update(value)
	if !said && len(value) > 0 {
		return
	}
	if t := c.streams[id]; t != nil {
		t.priority, t.preferred = p, true
		if t.waiting {
			c.unblock(t)
			c.line(t)
		}
		return
	}
	if c.client || id&1 == 0 || id <= c.last {
		return
	}
	f := c.foretold
	if f == nil {
		f = &foretold{}
		c.foretold = f
	}
	i := f.next
	for k := range f.ids {
		if f.ids[k] == id {
			i = k
		}
	}
	if i == f.next {
		f.next = (i + 1) % maxForetold
	}
	f.ids[i], f.priorities[i] = id, p
}

// foresaid gives t the priority that came before it did, which counts more than that of its request (RFC 9218, 7).
func (t *stream) foresaid() {
	f := t.conn.foretold
	if f == nil {
		return
	}
	for i, id := range f.ids {
		if id == t.id {
			t.priority, t.preferred, f.ids[i] = f.priorities[i], true, 0
		}
	}
}
