package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/server"
)

// maxExplained bounds the less specific matches that are listed.
const maxExplained = 20

// runExplain exits like grep: 0 found, 1 not found, 2 wrong usage or configuration.
func runExplain(c *invocation) int {
	spec, ok := explainSpec(c)
	if !ok {
		return exitUsage
	}
	cfg, problems := server.Load(c.text("c"))
	if problems.Refused() || cfg == nil {
		fmt.Fprint(c.stderr, problems)
		return exitUsage
	}
	found, err := compile.Explain(cfg, spec)
	if err != nil {
		return c.misused("%v", err)
	}
	fmt.Fprint(c.stdout, explanation(found))
	if found.Match == nil {
		return exitRefused
	}
	return exitOK
}

// explainSpec is the request that the command line describes.
func explainSpec(c *invocation) (spec compile.ExplainSpec, ok bool) {
	spec.Listener, spec.Headers = c.text("listener"), c.values["H"]
	if text := c.text("client"); text != "" {
		client, err := netip.ParseAddr(text)
		if err != nil {
			c.misused("%v", err)
			return spec, false
		}
		spec.Client = client.Unmap()
	}
	switch len(c.words) {
	case 1:
		spec.Method, spec.URL = "GET", c.words[0]
	case 2:
		spec.Method, spec.URL = c.words[0], c.words[1]
	default:
		fmt.Fprint(c.stderr, c.command.usage())
		return spec, false
	}
	return spec, true
}

func explanation(e *compile.Explained) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listener %s, client %s", e.Listener.Name, e.Client)
	if e.Path != "" {
		fmt.Fprintf(&b, ", path %q", e.Path)
	}
	b.WriteByte('\n')
	if e.Match == nil {
		why := e.Refused
		if why == "" {
			why = "status 404, not_found"
		}
		fmt.Fprintf(&b, "no route: %s\n", why)
	} else {
		r := e.Match.Route
		fmt.Fprintf(&b, "route %q at %s\n  match  %s\n", r.Name, r.Pos, e.Match.Match.Text)
		if len(e.Params) > 0 {
			fmt.Fprintf(&b, "  where  %q\n", e.Params)
		}
		fmt.Fprintf(&b, "  does   %s\n", actionText(r))
		explainShape(&b, r)
		if r.Breaker != nil {
			fmt.Fprintf(&b, "  unless its breaker %s\n", breakerText(r.Breaker))
		}
		for _, u := range e.Asked {
			if u.Breaker != nil {
				fmt.Fprintf(&b, "  unless the breaker of %s %s\n", u.Name, breakerText(u.Breaker))
			}
		}
	}
	explainTried(&b, e)
	return b.String()
}

// explainShape says who else gets requests of a route, and how they are spread.
func explainShape(b *strings.Builder, r *config.Route) {
	if len(r.SplitBy) > 0 {
		fmt.Fprintf(b, "  split  by %s\n", config.KeyTexts(r.SplitBy))
	}
	if k := r.Canary; k != nil {
		var steps []string
		for _, percent := range k.Steps {
			steps = append(steps, fmt.Sprintf("%d%%", percent))
		}
		fmt.Fprintf(b, "  canary %s of them to %s, each step for %s or longer", strings.Join(steps, ", "), k.To.Name(), k.Hold)
		if len(k.Keys) > 0 {
			fmt.Fprintf(b, ", by %s", config.KeyTexts(k.Keys))
		}
		if k.Abort != "" {
			fmt.Fprintf(b, "; none if %s", k.Abort)
		}
		b.WriteByte('\n')
	}
	if m := r.Mirror; m != nil {
		fmt.Fprintf(b, "  mirror copies of %g%% of them to %s\n", m.Share, m.To)
	}
}

// breakerText says when a breaker is open, and what answers then.
func breakerText(k *config.Breaker) string {
	var when []string
	if k.Errors > 0 {
		when = append(when, fmt.Sprintf("%g%% of %d or more fail in %s", k.Errors, k.MinRequests, k.Window))
	}
	if k.SlowPercentile > 0 {
		when = append(when, fmt.Sprintf("p%g of %d or more is above %s in %s", k.SlowPercentile, k.MinRequests, k.SlowOver, k.Window))
	}
	if k.Consecutive > 0 {
		when = append(when, fmt.Sprintf("%d fail in a row", k.Consecutive))
	}
	text := "is open, as when " + strings.Join(when, ", or ") + ": then "
	switch f := &k.Fallback; {
	case f.To != nil:
		return text + "to " + f.To.Upstream
	case f.Respond != nil:
		return text + fmt.Sprintf("status %d", f.Respond.Status)
	}
	return text + "status 503"
}

// explainTried lists the matches that were tried, in the order in which they are: the most specific first.
func explainTried(b *strings.Builder, e *compile.Explained) {
	if len(e.Tried) > 0 {
		b.WriteString("matches with this host and path, the most specific first:\n")
	}
	after := 0
	for i := range e.Tried {
		c := &e.Tried[i]
		verdict := "no: " + c.Refused
		switch {
		case c == e.Match:
			verdict = "yes"
		case e.Match == nil && c.Refused == "":
			verdict = "its conditions hold"
		case after > 0 || c.Refused == "":
			if after++; after > maxExplained {
				continue
			}
			if c.Refused == "" {
				verdict = "less specific"
			}
		}
		class := "host " + c.Host + ", path " + c.Path
		if c.Route.Priority != 0 {
			class += fmt.Sprintf(", priority %d", c.Route.Priority)
		}
		fmt.Fprintf(b, "  %s  %q  %s  (%s)\n      %s\n", c.Match.Pos, c.Route.Name, c.Match.Text, class, verdict)
	}
	if after > maxExplained {
		fmt.Fprintf(b, "  and %d less specific ones\n", after-maxExplained)
	}
	if e.Others > 0 {
		fmt.Fprintf(b, "matches with another host or path: %d\n", e.Others)
	}
}

// actionText says what a route does with its requests.
func actionText(r *config.Route) string {
	switch {
	case r.Respond != nil && r.Respond.Keys:
		return "respond with the keys of identity tokens"
	case r.Respond != nil:
		return fmt.Sprintf("respond with status %d", r.Respond.Status)
	case r.Redirect != nil:
		return fmt.Sprintf("redirect to %q with status %d", r.Redirect.To, r.Redirect.Status)
	}
	var to []string
	for _, t := range r.To {
		text := t.Name()
		if len(r.To) > 1 {
			text = fmt.Sprintf("%s (weight %d)", text, t.Weight)
		}
		to = append(to, text)
	}
	text := "to " + strings.Join(to, ", ")
	switch {
	case r.StripPrefix != "":
		text += fmt.Sprintf(", without the prefix %q", r.StripPrefix)
	case r.ReplacePrefix != nil:
		text += fmt.Sprintf(", with %q in the place of %q", r.ReplacePrefix.With, r.ReplacePrefix.Prefix)
	case r.Rewrite != nil:
		text += fmt.Sprintf(", with %q rewritten to %q", r.Rewrite.Pattern, r.Rewrite.To)
	}
	return text
}
