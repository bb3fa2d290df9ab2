package listen

// Progress is what shows whether a port accepts.
type Progress struct {
	Sockets int    // it accepts from
	Queued  int    // connections that wait in the kernel's queues of TCP sockets
	Handled uint64 // connections taken from the kernel, refused ones and failed tries included; it only grows
}

// Progress looks at the port's sockets as the kernel sees them, with a system call for each.
func (p *Port) Progress() Progress {
	g := Progress{Sockets: len(p.accepts), Handled: p.handled() + p.Counters().Failures}
	for _, a := range p.accepts {
		if a.sockets.bind.Path == "" {
			g.Queued += a.acceptor.Queued()
		}
	}
	return g
}
