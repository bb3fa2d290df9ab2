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

// Queue waits until it is c's turn to begin something new, behind all that came before: the task that serves it has more at
// hand.
func (c *Conn) Queue() error {
	l := c.loop
	if l.stopping {
		return ErrStopped
	}
	if l.arrivals.empty() {
		return nil
	}
	c.turn, c.came = l.current, l.turned
	if !c.wanted {
		c.wanted = true
		l.arrivals.add(c)
	}
	err := l.current.park(0)
	c.turn = nil
	return err
}

// Came is when what c is served for had come, as far as it is known, and as if it came now when asked again.
func (c *Conn) Came() int64 {
	t := c.came
	if c.came = 0; t == 0 {
		t = c.loop.turned
	}
	return t
}

// want has an idle connection served in which there is something to read, once it is its turn.
func (l *Loop) want(c *Conn) {
	if c.wanted {
		return
	}
	c.wanted, c.came = true, l.turned
	switch {
	case c.dialled:
		l.answers.add(c)
	case c.Busy || c.Tunnel:
		l.going.add(c)
	default:
		l.arrivals.add(c)
	}
}

// runArrivals serves what waits, each queue in the order in which it came: all answers, those whose work is under way until
// they have begun as much as they may, and as many of the others.
func (l *Loop) runArrivals() {
	l.answers.begin()
	for c, ok := l.answers.next(); ok; c, ok = l.answers.next() {
		l.attend(c)
	}
	l.ration(&l.going, 0)
	l.ration(&l.arrivals, 1)
}

// ration serves those in line until as much has begun as may: what they begin themselves, and each for so much.
func (l *Loop) ration(line *batch[*Conn], each int) {
	line.begin()
	for l.begun = 0; l.begun < maxBegun; {
		c, ok := line.next()
		if !ok {
			return
		}
		if l.attend(c) {
			l.begun += each
		}
	}
}

// attend serves a connection that waits, unless somebody has taken or closed it meanwhile, or nobody is there any more.
func (l *Loop) attend(c *Conn) bool {
	c.wanted = false
	switch {
	case c.closed:
		return false
	case c.turn != nil:
		if !c.turn.parked || c.turn.ready {
			return false
		}
		l.resume(c.turn)
		return true
	case !c.idle || !c.Readable():
		return false
	case c.broken && !c.dialled && !c.Busy && !c.Tunnel: // nobody is left to be answered
		c.Close()
		return false
	}
	c.Use()
	l.serve(c)
	return true
}
