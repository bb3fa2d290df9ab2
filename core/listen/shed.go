package listen

import "sync/atomic"

// Shed says whether connections are refused for want of memory, on all loops. It may be used from anywhere.
type Shed struct{ on atomic.Bool }

// Set begins or ends it.
func (s *Shed) Set(on bool) { s.on.Store(on) }

// On says whether connections are refused. Of a nil Shed they are not.
func (s *Shed) On() bool { return s != nil && s.on.Load() }

// Heed makes the listener refuse connections while s is on. It comes before the first connection.
func (c *Caps) Heed(s *Shed) { c.shed = s }
