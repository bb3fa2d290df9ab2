package compile

import (
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/tuning"
)

// Socket are the options that a configuration says of sockets, as the kernel is given them.
func Socket(s *config.Socket) tuning.Socket {
	name, ok := tuning.CongestionName(s.Congestion)
	if !ok {
		panic("BUG: the name of an algorithm is longer than the grammar allows")
	}
	return tuning.Socket{
		DeferAccept:     s.DeferAccept,
		FastOpen:        s.FastOpen,
		UserTimeout:     s.UserTimeout,
		NotSentLowat:    s.NotSentLowat,
		QuickAck:        choice(s.QuickAck),
		IncomingCPU:     s.IncomingCPU,
		Steer:           s.Steer,
		BusyPoll:        s.BusyPoll,
		ReceiveBuffer:   s.ReceiveBuffer,
		SendBuffer:      s.SendBuffer,
		Congestion:      name,
		Backlog:         s.Backlog,
		KeepAlive:       choice(s.KeepAlive.Mode),
		KeepAliveIdle:   s.KeepAlive.Idle,
		KeepAliveEvery:  s.KeepAlive.Interval,
		KeepAliveProbes: s.KeepAlive.Probes,
		Required:        s.Required,
	}
}

func choice(word string) tuning.Choice {
	switch word {
	case "on":
		return tuning.On
	case "off":
		return tuning.Off
	}
	return tuning.Default
}

// prepare is how sockets that connect are given the options; nil: there are none. What the kernel refuses was told when the
// configuration was put in force, and is left out.
func prepare(s *config.Socket) *loop.Preparation {
	if *s == (config.Socket{}) {
		return nil
	}
	options := Socket(s)
	p := &loop.Preparation{Connect: func(fd int) { _ = options.Connect(fd) }, QuickAck: options.QuickAck == tuning.On}
	if options.QuickAck != tuning.Default {
		p.Renew = func(fd int) { _ = options.Renew(fd) }
	}
	return p
}
