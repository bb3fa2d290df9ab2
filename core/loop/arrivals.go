package loop

// maxBegun is how much new work a turn begins. What is under way comes first: with 512 clients that all want something, the
// few requests begun in a turn find their stacks, buffers and connections to upstreams still in the processor's caches, and
// have been answered before the next are read, where all of them at once would have thrown out one another's.
const maxBegun = 32

// Begin is Go for new work that a connection has brought: it counts towards what a turn may begin.
func (l *Loop) Begin(f func()) Task {
	l.begun++
	return l.Go(f)
}

// want has an idle connection served in which there is something to read, once it is its turn. One that was dialled need not
// wait behind the new work of others: it has brought an answer.
func (l *Loop) want(c *Conn) {
	switch {
	case c.wanted:
		return
	case c.dialled:
		l.answers.add(c)
	default:
		l.arrivals.add(c)
	}
	c.wanted = true
}

// runArrivals serves what waits, in the order in which it came: all answers, and as many arrivals as a turn may begin.
func (l *Loop) runArrivals() {
	l.answers.begin()
	for c, ok := l.answers.next(); ok; c, ok = l.answers.next() {
		c.wanted = false
		l.attend(c)
	}
	l.arrivals.begin()
	for l.begun = 0; l.begun < maxBegun; l.begun++ {
		c, ok := l.arrivals.next()
		if !ok {
			return
		}
		c.wanted = false
		l.attend(c)
	}
}

// attend serves an idle connection, unless somebody has taken or closed it meanwhile.
func (l *Loop) attend(c *Conn) {
	if c.idle && c.Readable() && !c.closed {
		c.Use()
		l.serve(c)
	}
}
