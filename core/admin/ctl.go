package admin

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// DefaultAddress is where the gateway listens when the configuration says nothing else.
const DefaultAddress = "unix:/run/sluice/admin.sock"

// What Ctl returns.
const (
	exitOK      = 0
	exitRefused = 1
	exitUsage   = 2
)

// errUsage is a command line that says nothing to be done.
type errUsage string

func (e errUsage) Error() string { return string(e) }

// Ctl is the command `sluice ctl`: args are what comes after it. It returns the exit code: 0 done, 1 refused or not
// reached, 2 wrong usage.
func Ctl(args []string, stdout, stderr io.Writer) int {
	k := ctl{out: stdout}
	words, err := k.parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(stdout, ctlUsage())
		return exitOK
	case err == nil:
		err = k.run(words)
	}
	var usage errUsage
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(stderr, "sluice ctl: %v\n\n%s", err, ctlUsage())
		return exitUsage
	}
	_, _ = fmt.Fprintf(stderr, "sluice ctl: %s\n", Printable(err.Error(), "\n\t"))
	return exitRefused
}

// ctl is one call of the command.
type ctl struct {
	client Client
	out    io.Writer
	json   bool
	wait   bool
	route  string
	life   time.Duration // of revocations
}

// parse reads flags wherever they stand, and returns the other words.
func (k *ctl) parse(args []string) (words []string, err error) {
	f := flag.NewFlagSet("ctl", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&k.client.Address, "admin", DefaultAddress, "")
	f.BoolVar(&k.json, "json", false, "")
	f.BoolVar(&k.wait, "wait", false, "")
	f.StringVar(&k.route, "route", "", "")
	f.DurationVar(&k.life, "for", 0, "")
	for len(args) > 0 {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, errUsage(err.Error())
		}
		if args = f.Args(); len(args) > 0 {
			words, args = append(words, args[0]), args[1:]
		}
	}
	if len(words) == 0 {
		return nil, errUsage("no command")
	}
	most := 1
	switch words[0] {
	case "log-level":
		most = 2
	case "upstream", "limit", "route", "canary", "tokens", "sessions":
		most = len(words)
	}
	if len(words) > most {
		return nil, errUsage(fmt.Sprintf("unexpected %q", words[most]))
	}
	if k.route != "" && len(words) < 2 {
		return nil, errUsage("--route goes with log-level LEVEL")
	}
	if k.life != 0 && (words[0] != "tokens" || len(words) < 2 || words[1] != "revoke") {
		return nil, errUsage("--for goes with tokens revoke")
	}
	if k.wait && words[0] != "reload" {
		return nil, errUsage("--wait goes with reload")
	}
	if _, _, err := target(k.client.Address); err != nil {
		return nil, errUsage(err.Error())
	}
	return words, nil
}

func (k *ctl) run(words []string) error {
	switch words[0] {
	case "health":
		return k.say("ok", k.client.Healthy())
	case "ready":
		err := k.client.Ready()
		var refused *Refusal
		if errors.As(err, &refused) {
			return fmt.Errorf("not ready: %w", err)
		}
		return k.say("ready", err)
	case "status":
		s, err := k.client.Status()
		return k.show(s, err, func(w io.Writer) { printStatus(w, &s, time.Now()) })
	case "routes":
		r, err := k.client.Routes()
		return k.show(r, err, func(w io.Writer) { printRoutes(w, r) })
	case "route":
		return k.setWeights(words[1:])
	case "canaries":
		all, err := k.client.Canaries()
		return k.show(all, err, func(w io.Writer) { printCanaries(w, all) })
	case "canary":
		return k.changeCanary(words[1:])
	case "certs":
		all, err := k.client.Certs()
		return k.show(all, err, func(w io.Writer) { printCerts(w, all, time.Now()) })
	case "limits":
		all, err := k.client.Limits()
		return k.show(all, err, func(w io.Writer) { printLimits(w, all) })
	case "limit":
		return k.limit(words[1:])
	case "jwks":
		all, err := k.client.Keys()
		return k.show(all, err, func(w io.Writer) { printKeys(w, all) })
	case "signing-keys":
		all, err := k.client.SigningKeys()
		return k.show(all, err, func(w io.Writer) { printSigningKeys(w, all) })
	case "tokens":
		return k.tokens(words[1:])
	case "sessions":
		return k.sessions(words[1:])
	case "upstreams":
		u, err := k.client.Upstreams()
		return k.show(u, err, func(w io.Writer) { printUpstreams(w, u) })
	case "upstream":
		return k.setEndpoints(words[1:])
	case "config":
		return k.raw(k.client.Config())
	case "metrics":
		return k.raw(k.client.Metrics())
	case "log-level":
		return k.logLevel(words[1:])
	case "reload":
		done := "reload begun"
		if k.wait {
			done = "reloaded"
		}
		return k.say(done, k.client.Reload(k.wait))
	}
	return errUsage(fmt.Sprintf("unknown command %q", words[0]))
}

func (k *ctl) logLevel(words []string) error {
	var l LogLevel
	var err error
	if len(words) == 0 {
		l, err = k.client.LogLevel()
	} else {
		l, err = k.client.SetLogLevel(k.route, words[0])
	}
	return k.show(l, err, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "level\t%s\n", l.Level)
		if len(l.Routes) > 0 {
			_, _ = fmt.Fprintf(w, "debugged routes\t%s\n", cells(l.Routes))
		}
	})
}

// setEndpoints changes endpoints of an upstream, and shows what became of it.
func (k *ctl) setEndpoints(words []string) error {
	if len(words) < 3 {
		return errUsage("upstream wants NAME, a change and ADDRESS")
	}
	set := SetEndpoints{Upstream: words[0], Change: words[1], Endpoints: words[2:]}
	switch set.Change {
	case "drain", "disable", "enable", "add", "remove", "set":
	case "weight":
		if len(words) != 4 {
			return errUsage("upstream NAME weight wants ADDRESS and N")
		}
		set.Endpoints = words[2:3]
		if words[3] != "configured" {
			n, err := strconv.Atoi(words[3])
			if err != nil {
				return errUsage(fmt.Sprintf("weight %q is no number", words[3]))
			}
			set.Weight = &n
		}
	default:
		return errUsage(fmt.Sprintf("unknown change %q", set.Change))
	}
	u, err := k.client.SetEndpoints(set)
	return k.show(u, err, func(w io.Writer) { printUpstreams(w, []UpstreamStatus{u}) })
}

// say prints one word unless err is set.
func (k *ctl) say(word string, err error) error {
	return k.show(state{word}, err, func(w io.Writer) { _, _ = fmt.Fprintln(w, word) })
}

func (k *ctl) raw(b []byte, err error) error {
	if err == nil {
		_, err = k.out.Write(b)
	}
	return err
}

// show prints v, as a table or as JSON, unless err is set.
func (k *ctl) show(v any, err error, table func(w io.Writer)) error {
	if err != nil {
		return err
	}
	if k.json {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			panic("BUG: " + err.Error()) // plain data
		}
		_, err = k.out.Write(append(b, '\n'))
		return err
	}
	w := tabwriter.NewWriter(k.out, 0, 0, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// inBrackets is a reason behind a time; "" where a gateway of an older version gives none.
func inBrackets(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + cell(reason) + ")"
}

func printStatus(w io.Writer, s *Status, now time.Time) {
	f := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	f("state\t%s", cell(s.State))
	f("version\t%s", cell(strings.TrimSpace(s.Version+" "+s.Commit+" "+s.Go)))
	f("pid\t%d", s.PID)
	f("up\t%v, since %s", now.Sub(s.Started).Round(time.Second), s.Started.Format(time.RFC3339))
	f("configuration\t%s, generation %d", cell(s.ConfigFile), s.Generation)
	if r := s.Reload; r != nil && r.Applied {
		f("last reload\tapplied %s", r.At.Format(time.RFC3339))
	} else if r != nil {
		f("last reload\trefused %s%s: %s", r.At.Format(time.RFC3339), inBrackets(r.Reason), cell(r.Error))
	}
	if s.Upgrades > 0 {
		f("upgrades\t%d, this is process %d, up %v, since %s", s.Upgrades, s.Process, now.Sub(s.ProcessStarted).Round(time.Second),
			s.ProcessStarted.Format(time.RFC3339))
	}
	if u := s.Upgrade; u != nil && u.UnderWay {
		f("upgrade\tunder way since %s", u.At.Format(time.RFC3339))
	} else if u != nil {
		f("last upgrade\tfailed %s%s: %s", u.At.Format(time.RFC3339), inBrackets(u.Reason), cell(u.Error))
	}
	if c := s.Cluster; c != nil {
		state := "there"
		if c.Away {
			state = "away"
		} else if c.Missing > 0 {
			state = fmt.Sprintf("%d of %d shards away", c.Missing, c.Shards)
		}
		f("cluster\t%s since %s, %d commands, %d errors, last problem: %s", state, c.Since.Format(time.RFC3339), c.Commands, c.Errors, cell(c.Problem))
	}
	if o := s.Older; o != nil {
		f("older process\t%s", o.text(now))
	}
	printTuning(w, s.Tuning)
	f("\nLOOP\tEXCHANGES")
	for _, l := range s.Loops {
		if l.Stalled {
			f("%d\tstalled", l.Index)
		} else {
			f("%d\t%d", l.Index, l.Exchanges)
		}
	}
	f("\nLISTENER\tOPEN\tACCEPTED\tBINDS")
	for _, l := range s.Listeners {
		f("%s\t%d\t%d\t%s", cell(l.Name), l.Connections, l.Accepted, cells(l.Binds))
	}
}

// text tells of it what it has told.
func (o *OlderStatus) text(now time.Time) string {
	text := fmt.Sprintf("pid %d, version %s", o.PID, cell(o.Version))
	if o.Process > 0 {
		text += fmt.Sprintf(", process %d", o.Process)
	}
	if o.Generation > 0 {
		text += fmt.Sprintf(", generation %d", o.Generation)
	}
	if !o.Started.IsZero() {
		text += fmt.Sprintf(", up %v", now.Sub(o.Started).Round(time.Second))
	}
	if o.Since.IsZero() {
		return text + ", does not drain yet"
	}
	return text + fmt.Sprintf(", drains since %v, ends within %v: %d connections, %d exchanges, %d tunnels",
		now.Sub(o.Since).Round(time.Second), o.Until.Sub(now).Round(time.Second), o.Connections, o.Exchanges, o.Tunnels)
}

func printTuning(w io.Writer, t *TuningStatus) {
	if t == nil {
		return
	}
	_, _ = fmt.Fprintf(w, "processors\t%s\n", t.CPUList)
	_, _ = fmt.Fprintf(w, "descriptors\tat most %d\n", t.Files)
	if t.MemoryOf > 0 {
		_, _ = fmt.Fprintf(w, "memory\t%d of %d MiB\n", t.MemoryUsed>>20, t.MemoryOf>>20)
	}
	if t.Shedding {
		_, _ = fmt.Fprintln(w, "shedding\tnew connections are refused, because memory is short")
	}
}

func printRoutes(w io.Writer, routes []RouteStatus) {
	_, _ = fmt.Fprintln(w, "ROUTE\tACTION\tMATCHES\tOVERRIDES")
	for _, r := range routes {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", cell(r.Name), cell(r.Action), cells(r.Matches), dash(r.Overrides))
	}
	printMirrors(w, routes)
	printRouteBreakers(w, routes)
}

func printUpstreams(w io.Writer, upstreams []UpstreamStatus) {
	_, _ = fmt.Fprintln(w, "UPSTREAM\tENDPOINT\tNAME\tWEIGHT\tSHARE\tIN FLIGHT\tOPEN\tIDLE\tPENDING\tFLAGS\tOVERRIDES\tHEALTH")
	for _, u := range upstreams {
		if len(u.Endpoints) == 0 {
			_, _ = fmt.Fprintf(w, "%s\tnone\t-\t-\t-\t-\t-\t-\t%d\t-\t-\t-\n", cell(u.Name), u.Pending)
		}
		for _, e := range u.Endpoints {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%.1f%%\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", cell(u.Name), cell(e.Address), cell(e.Name), e.Weight,
				100*e.Share, e.InFlight, e.Open, e.Idle, u.Pending, flagsText(&e), dash(e.Overrides), e.Health.text(time.Now()))
		}
		for _, address := range u.Removed {
			_, _ = fmt.Fprintf(w, "%s\t-\t%s\t-\t-\t-\t-\t-\t-\t-\tremoved\t-\n", cell(u.Name), cell(address))
		}
	}
	printSources(w, upstreams)
	printResilience(w, upstreams)
}

func printSources(w io.Writer, upstreams []UpstreamStatus) {
	head := "\nUPSTREAM\tSOURCE\tENDPOINTS\tFOUND\tNEXT\tFAILURES\tPROBLEM\n"
	for _, u := range upstreams {
		for _, s := range u.Sources {
			_, _ = fmt.Fprintf(w, "%s%s\t%s\t%d\t%s\t%s\t%d\t%s\n", head, cell(u.Name), cell(s.Name), s.Endpoints, instant(s.Found), instant(s.Next), s.Failures, cell(s.Problem))
			head = ""
		}
	}
}

// text is a state, for how long, and why.
func (h *HealthStatus) text(now time.Time) string {
	if h == nil {
		return "-"
	}
	text := fmt.Sprintf("%s %s", cell(h.State), now.Sub(h.Since).Round(time.Second))
	if h.Reason != "" {
		text += ": " + cell(h.Reason)
	}
	return text
}

// dash is a list of short words, or a dash for none.
func dash(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return cells(list)
}

func printCerts(w io.Writer, all []CertificateStatus, now time.Time) {
	_, _ = fmt.Fprintln(w, "LISTENER\tNAMES\tSOURCE\tKEY\tEXPIRES\tDAYS\tNEXT\tSTAPLE\tFILE\tPROBLEM")
	for _, c := range all {
		expires, days, staple, problem := instant(c.NotAfter), "-", "-", c.Problem
		if !c.NotAfter.IsZero() {
			days = fmt.Sprint(int(c.NotAfter.Sub(now).Hours() / 24))
		}
		if s := c.Staple; s != nil {
			staple = s.State
			if s.Problem != "" && problem != "" {
				problem += "; "
			}
			problem += s.Problem
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cell(c.Listener), cells(c.Names), cell(c.Source), cell(c.Key),
			expires, days, instant(c.Next), cell(staple), cell(c.File), cell(problem))
	}
}

func printKeys(w io.Writer, all []KeysStatus) {
	_, _ = fmt.Fprintln(w, "PLACE\tKEYS\tIDS\tFETCHED\tNEXT\tPROBLEM")
	for _, k := range all {
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", cell(k.Place), k.Keys, cells(k.IDs), instant(k.Fetched), instant(k.Next), cell(k.Problem))
	}
}

func instant(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(time.RFC3339)
}

// cell makes text fit to print in a terminal's table.
func cell(s string) string {
	if s == "" {
		return "-"
	}
	return Printable(s, "")
}

// Printable escapes what a terminal might take for a command. The characters in but are left alone.
func Printable(s, but string) string {
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) || strings.ContainsRune(but, r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

func cells(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = cell(s)
	}
	return strings.Join(out, ", ")
}
