package core

import "time"

// MinRate is how slowly a client may send what it has begun to send, and take what is sent to it: against those who hold
// connections and memory by moving a byte now and then, each in time for every timeout.
type MinRate struct {
	Receive, Send int64         // bytes a second, 1..1e9; 0: as slowly as it likes
	Grace         time.Duration // that a client may stay behind; above zero with either
}

// Pace holds one direction of an exchange to a rate. The client has a time of grace, of which each wait for it takes what it
// lasted, and each byte gives back the time that it may take at that rate, but never more than was there at first. Time that the gateway or an upstream
// takes does not count. The zero Pace bounds nothing. It belongs to one loop.
type Pace struct {
	perByte, grace, left int64 // nanoseconds
}

// NewPace gives the pace of a direction with that rate, one of r's.
func (r *MinRate) NewPace(rate int64) Pace {
	if rate <= 0 {
		return Pace{}
	}
	return Pace{perByte: int64(time.Second) / rate, grace: int64(r.Grace), left: int64(r.Grace)}
}

// Bounded says whether there is a rate.
func (p *Pace) Bounded() bool { return p.grace > 0 }

// Timeout bounds one wait for the client: timeout, in nanoseconds, or what the client has left if that is less. A timeout of 0 is
// none.
func (p *Pace) Timeout(timeout int64) int64 {
	if !p.Bounded() {
		return timeout
	}
	left := max(p.left, 1)
	if timeout > 0 && timeout < left {
		return timeout
	}
	return left
}

// Moved counts n bytes for which the gateway waited so many nanoseconds.
func (p *Pace) Moved(n, waited int64) {
	if p.Bounded() {
		p.left = min(p.left-waited+n*p.perByte, p.grace)
	}
}
