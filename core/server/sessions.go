package server

import (
	"encoding/json"
	"fmt"

	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/observe"
)

// loginsStatus describes the policies that have people log in.
func (s *Server) loginsStatus() (out []admin.LoginsStatus) {
	now := s.state.Load()
	if now == nil {
		return nil
	}
	for i := range now.compiled.Logins {
		l := &now.compiled.Logins[i]
		one := admin.LoginsStatus{Policy: l.Name, Issuer: l.Issuer, Last: []admin.SessionStatus{}}
		one.Problem, one.Known = l.Problem()
		one.Shared, one.Heard = l.Shared()
		some, n, evicted := l.Sessions(admin.ShownSessions)
		one.Sessions, one.Evicted = n, evicted
		for _, x := range some {
			one.Last = append(one.Last, admin.SessionStatus(x))
		}
		out = append(out, one)
	}
	return out
}

// endSessions ends the session of that id, or all of a subject, whatever the policy.
func (s *Server) endSessions(who string) (n int, err error) {
	now := s.state.Load()
	if now == nil {
		return 0, nil
	}
	for i := range now.compiled.Logins {
		more, failed := now.compiled.Logins[i].End(who)
		if n += more; failed != nil {
			err = fmt.Errorf("cannot tell other nodes of the policy %q, which are told when Redis is there again: %w", now.compiled.Logins[i].Name, failed)
		}
	}
	return n, err
}

// collectLogins tells what loop i has counted.
func collectLogins(all []compile.Logins, i int, sink *observe.Sink) {
	for _, l := range all {
		c := l.Policy.Counts(i)
		const help = "Logins by what came of them: begun, done, refused (a browser came back and has no session), denied (whoever asked was no browser)."
		for _, one := range []struct {
			result string
			n      uint64
		}{{"begun", c.Begun}, {"done", c.Done}, {"refused", c.Refused}, {"denied", c.Denied}} {
			sink.Counter("sluice_logins_total", help, float64(one.n), "policy", l.Name, "result", one.result)
		}
		const refreshes = "Requests for which the tokens of a session were refreshed, or the session was ended since they could not be."
		sink.Counter("sluice_login_refreshes_total", refreshes, float64(c.Refreshed), "policy", l.Name, "result", "refreshed")
		sink.Counter("sluice_login_refreshes_total", refreshes, float64(c.Ended), "policy", l.Name, "result", "ended")
		const failures = "Questions to a provider of logins without an answer, and those that were not asked because of too many."
		sink.Counter("sluice_login_failures_total", failures, float64(c.Failed), "policy", l.Name, "reason", "failed")
		sink.Counter("sluice_login_failures_total", failures, float64(c.Busy), "policy", l.Name, "reason", "busy")
		const logouts = "Logouts, by people, or told by their provider."
		sink.Counter("sluice_logouts_total", logouts, float64(c.Logouts), "policy", l.Name, "by", "person")
		sink.Counter("sluice_logouts_total", logouts, float64(c.Told), "policy", l.Name, "by", "provider")
		if shared, _ := l.Shared(); !shared {
			continue
		}
		const lookups = "Sessions that were looked for where nodes share them: answered, missed (no answer), crowded (not asked because of too many), forged (an id " +
			"that no node has made, and not asked), alone (not answered, and the copy here was used)."
		for _, one := range []struct {
			result string
			n      uint64
		}{{"answered", c.Looked}, {"missed", c.Missed}, {"crowded", c.Crowded}, {"forged", c.Forged}, {"alone", c.Alone}} {
			sink.Counter("sluice_session_lookups_total", lookups, float64(one.n), "policy", l.Name, "result", one.result)
		}
	}
}

// collectSessions tells of the sessions, which all loops share.
func collectSessions(all []compile.Logins, sink *observe.Sink) {
	for _, l := range all {
		_, n, evicted := l.Sessions(0)
		sink.Gauge("sluice_sessions", "Sessions of people who have logged in.", float64(n), "policy", l.Name)
		sink.Counter("sluice_sessions_evicted_total", "Sessions that had to make room for others.", float64(evicted), "policy", l.Name)
		if shared, heard := l.Shared(); shared {
			sink.Gauge("sluice_sessions_heard", "1 while what becomes of shared sessions on other nodes is heard.", oneIf(heard), "policy", l.Name)
		}
	}
}

// exportSessions gives the sessions of people, and what their logins that are under way are sealed with.
func (s *Server) exportSessions(c *compile.Compiled) (any, error) {
	kept, all := c.Sessions()
	if !all {
		s.log.Warn("there are more sessions than can be handed over: those that were used last are")
	}
	return kept, nil
}

func (s *Server) restoreSessions(c *compile.Compiled, body []byte) error {
	var kept map[string]compile.KeptSessions
	if err := json.Unmarshal(body, &kept); err != nil {
		return err
	}
	return c.RestoreSessions(kept)
}
