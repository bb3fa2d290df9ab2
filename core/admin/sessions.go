package admin

import (
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/valyala/fasthttp"
)

// LoginsStatus is one policy that has people log in.
type LoginsStatus struct {
	Policy   string          `json:"policy"`
	Issuer   string          `json:"issuer"`
	Known    bool            `json:"known"` // the provider has described itself
	Problem  string          `json:"problem,omitempty"`
	Sessions int             `json:"sessions"`
	Evicted  uint64          `json:"evicted"` // that had to make room for others
	Shared   bool            `json:"shared"`  // with other nodes: Sessions and Last are those known here
	Heard    bool            `json:"heard"`   // what becomes of shared sessions elsewhere is heard now
	Last     []SessionStatus `json:"last"`    // that were used last, ShownSessions at most
}

// SessionStatus is one session.
type SessionStatus struct {
	ID      string    `json:"id"` // to revoke it by: what the browser has cannot be told
	Subject string    `json:"subject"`
	Begun   time.Time `json:"begun"`
	Used    time.Time `json:"used"`
	Until   time.Time `json:"until"` // it ends then at the latest
}

// ShownSessions bounds the sessions of a policy that are shown.
const ShownSessions = 1000

// Revoked is how many sessions were ended.
type Revoked struct {
	Revoked int `json:"revoked"`
}

func (s *Server) endSessions(c *fasthttp.RequestCtx) {
	who := string(c.QueryArgs().Peek("who"))
	if who == "" {
		fail(c, fasthttp.StatusBadRequest, "who is not given: an id or a subject")
		return
	}
	n, err := s.source.EndSessions(who)
	if err != nil {
		s.log.Warn("sessions revoked on this node alone", "who", who, "number", n, "error", err)
		fail(c, fasthttp.StatusServiceUnavailable, fmt.Sprintf("%d sessions have ended here: %s", n, err))
		return
	}
	if n == 0 {
		fail(c, fasthttp.StatusNotFound, "nobody has such a session")
		return
	}
	s.log.Info("sessions revoked", "who", who, "number", n)
	reply(c, fasthttp.StatusOK, Revoked{n})
}

// Sessions gives the policies that have people log in, and who has.
func (c *Client) Sessions() (all []LoginsStatus, err error) {
	return all, c.ask("GET", "/sessions", nil, &all)
}

// RevokeSessions ends the session of that id, or all of a subject.
func (c *Client) RevokeSessions(who string) (r Revoked, err error) {
	return r, c.ask("DELETE", "/sessions?"+url.Values{"who": {who}}.Encode(), nil, &r)
}

// sessions shows sessions, or ends some.
func (k *ctl) sessions(words []string) error {
	switch {
	case len(words) == 0:
		all, err := k.client.Sessions()
		return k.show(all, err, func(w io.Writer) { printSessions(w, all) })
	case len(words) == 2 && words[0] == "revoke":
		r, err := k.client.RevokeSessions(words[1])
		return k.show(r, err, func(w io.Writer) { _, _ = fmt.Fprintf(w, "revoked\t%d\n", r.Revoked) })
	}
	return errUsage("sessions stands alone, or wants revoke and an ID or SUBJECT")
}

func printSessions(w io.Writer, all []LoginsStatus) {
	_, _ = fmt.Fprintln(w, "POLICY\tISSUER\tSESSIONS\tSHARED\tEVICTED\tPROBLEM")
	for _, l := range all {
		problem := l.Problem
		if problem == "" && !l.Known {
			problem = "not known yet"
		}
		shared := "no"
		switch {
		case l.Shared && l.Heard:
			shared = "yes"
		case l.Shared:
			shared = "unheard"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s\n", cell(l.Policy), cell(l.Issuer), l.Sessions, shared, l.Evicted, cell(problem))
	}
	_, _ = fmt.Fprintln(w, "\nID\tPOLICY\tSUBJECT\tBEGUN\tUSED\tUNTIL")
	for _, l := range all {
		for _, s := range l.Last {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", cell(s.ID), cell(l.Policy), cell(s.Subject), instant(s.Begun), instant(s.Used), instant(s.Until))
		}
	}
}
