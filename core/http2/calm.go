package http2

import "github.com/sluice-gateway/sluice/core"

// What a client can do too often. Each has its own bucket of tokens, so that one says which it was.
const (
	calmControl  = iota // PRIORITY, unknown frames, frames on closed streams
	calmSettings        // SETTINGS
	calmPing            // PING
	calmWindow          // WINDOW_UPDATE
	calmEmpty           // DATA without data, CONTINUATION
	calmReset           // streams opened and reset
	calmBlock           // header blocks that do not end
	calmBomb            // header blocks that decode to far more than they are
	calmStall           // streams whose window stays shut
	calmSlow            // nothing, or too little, is read from the connection
	calmCount
)

// CalmReasons name the entries of Counters.Calm.
func CalmReasons() [calmCount]string {
	return [...]string{"control_flood", "settings_flood", "ping_flood", "window_update_flood", "empty_frame_flood", "rapid_reset", "continuation_flood", "hpack_bomb",
		"stall", "slow_reader"}
}

// rates are tokens a second, and twice that at most in stock. Window updates follow what is downloaded: they are counted
// generously, and what was sent gives more.
var rates = [calmCount]int64{calmControl: 500, calmSettings: 50, calmPing: 100, calmWindow: 5000, calmEmpty: 200, calmReset: 100}

// calm counts what a client does: it holds the instants at which each bucket will be full again.
type calm [calmCount]int64

const second = int64(1e9)

// A pause is no attack: a stream whose client takes nothing for the write timeout is reset, and that is all. But each has held memory
// and an upstream for that long, so that a connection may have maxStalls of them in stock, and one more each stallCost.
const (
	maxStalls = 10
	stallCost = 10 * second
)

// price is what a token costs, and what all in stock do, in nanoseconds.
func price(what int) (each, all int64) {
	if what == calmStall || what == calmSlow {
		return stallCost, maxStalls * stallCost
	}
	return second / rates[what], 2 * second
}

// take takes a token, and says whether there was one.
func (m *calm) take(what int, now int64) bool {
	each, all := price(what)
	full := max(m[what], now) + each
	if full > now+all {
		return false
	}
	m[what] = full
	return true
}

// updateBytes is how much a client must have taken to be owed another window update, of the connection or the stream: some
// send both for every 4 KiB that they read.
const updateBytes = 1 << 10

// pinged gives a token for the PING that some clients send with each reset, to learn when the server has seen it. Resets are
// rationed by themselves.
func (m *calm) pinged() { m[calmPing] -= second / rates[calmPing] }

// sent gives tokens for the window updates that follow a frame with n bytes of body, and for a PING: gRPC sends one for what has come,
// to measure the path.
func (m *calm) sent(n int) {
	m[calmWindow] -= int64(2+n/updateBytes) * (second / rates[calmWindow])
	m.pinged()
}

// calmly counts one more of what; false ends the connection (RFC 9113, 10.5).
func (c *conn) calmly(what int) bool {
	if c.calm.take(what, c.res.loop.Now()) {
		return true
	}
	c.abused(what)
	return false
}

// abused ends the connection for what.
func (c *conn) abused(what int) {
	if !c.dying && !c.closed {
		c.res.calm[what]++
		c.fail(CodeEnhanceYourCalm, CalmReasons()[what])
	}
}

// slow ends the stream because its peer takes too little, and the connection if there is more to it: nothing was read from it for as
// long, or this happens again and again.
func (t *stream) slow() *core.Error {
	c, err := t.conn, t.conn.blame.slowTaker
	what := calmStall
	if t.passes() {
		what = calmSlow
	}
	deaf := what == calmSlow && c.res.loop.Now()-t.since() >= t.sendTimeout
	c.cut(t.id, CodeCancel, err)
	switch {
	case c.client: // an upstream has its own reasons
	case deaf:
		c.abused(what)
	default:
		c.calmly(what)
	}
	return err
}
