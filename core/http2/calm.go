package http2

// What a client can do too often. Each has its own bucket of tokens, so that one says which it was.
const (
	calmControl  = iota // PRIORITY, unknown frames, frames on closed streams
	calmSettings        // SETTINGS
	calmPing            // PING
	calmWindow          // WINDOW_UPDATE
	calmEmpty           // DATA without data, CONTINUATION
	calmReset           // streams opened and reset
	calmBlock           // header blocks that do not end
	calmCount
)

// CalmReasons name the entries of Counters.Calm.
func CalmReasons() [calmCount]string {
	return [...]string{"control_flood", "settings_flood", "ping_flood", "window_update_flood", "empty_frame_flood", "rapid_reset", "continuation_flood"}
}

// rates are tokens a second, and twice that at most in stock. Window updates follow what is downloaded: they are counted
// generously, and a frame of body that was sent gives two more.
var rates = [calmCount]int64{calmControl: 500, calmSettings: 50, calmPing: 100, calmWindow: 5000, calmEmpty: 200, calmReset: 100, calmBlock: 1}

// calm counts what a client does.
type calm struct {
	tokens [calmCount]int64
	at     int64 // when the stock was last filled up
}

func (m *calm) begin(now int64) {
	m.at = now
	for i := range m.tokens {
		m.tokens[i] = 2 * rates[i]
	}
}

const second = int64(1e9)

// take takes a token, and says whether there was one.
func (m *calm) take(what int, now int64) bool {
	if m.tokens[what] == 0 {
		for i := range m.tokens {
			m.tokens[i] = min(m.tokens[i]+(now-m.at)*rates[i]/second, 2*rates[i])
		}
		m.at = now
	}
	if m.tokens[what] <= 0 {
		return false
	}
	m.tokens[what]--
	return true
}

// calmly counts one more of what; false ends the connection (RFC 9113, 10.5).
func (c *conn) calmly(what int) bool {
	if c.calm.take(what, c.server.worker.Loop.Now()) {
		return true
	}
	c.server.counts.Calm[what]++
	c.fail(CodeEnhanceYourCalm, CalmReasons()[what])
	return false
}
