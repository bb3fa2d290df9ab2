package admin

import (
	"fmt"
	"slices"
	"strings"
)

// Subcommand is a command of ctl as help, manual and completions show it. Help may have several lines.
type Subcommand struct{ Name, Arguments, Help string }

// subcommands are all that ctl.run knows.
var subcommands = [...]Subcommand{
	{"health", "", "does the process answer?"},
	{"ready", "", "does it take requests?"},
	{"status", "", "state, reloads, loops and listeners"},
	{"routes", "", "routes in force"},
	{"route", "NAME weight UPSTREAM=N...", "gives upstreams of a route other weights, 0 to 1000, or \"configured\""},
	{"canaries", "", "canaries, their shares, and why"},
	{"canary", "ROUTE pause|resume|forward|promote|abort", "stays at the step, goes on, goes to the next, gives it all, or nothing"},
	{"upstreams", "", "upstreams, their endpoints and connections"},
	{"upstream", "NAME weight ADDRESS N", "gives an endpoint another weight, 0 to 1000, or \"configured\""},
	{"upstream", "NAME drain ADDRESS...", "sends an endpoint nothing new; what it has may end"},
	{"upstream", "NAME disable ADDRESS...", "takes an endpoint out"},
	{"upstream", "NAME enable ADDRESS...", "takes drain and disable back"},
	{"upstream", "NAME add ADDRESS...", "adds endpoints, or takes remove back"},
	{"upstream", "NAME remove ADDRESS...", "removes endpoints"},
	{"upstream", "NAME set ADDRESS...", "makes these its only endpoints"},
	{"certs", "", "certificates and when they expire"},
	{"limits", "", "limits, what they count, and who is refused most"},
	{"limit", "POLICY show|reset [VALUE]...", "one key's buckets, by the values that it is made of"},
	{"jwks", "", "keys of tokens, and where they come from"},
	{"signing-keys", "", "keys that tokens for upstreams are signed with"},
	{"tokens", "", "tokens that were revoked"},
	{"tokens", "revoke jti|sub VALUE... [--for TIME]", "refuses a token from now on, or all that a subject has; for 720h, or as long as they may live"},
	{"tokens", "restore jti|sub VALUE...", "takes that back"},
	{"sessions", "", "people who have logged in, those who were here last first"},
	{"sessions", "revoke ID|SUBJECT", "ends a session, or all that somebody has, at once"},
	{"config", "", "configuration in force, as YAML"},
	{"metrics", "", "Prometheus text"},
	{"log-level", "[LEVEL] [--route NAME]", "show or change the error log's level: debug, info, warn or error"},
	{"reload", "[--wait]", "read the configuration anew; --wait tells whether it was applied"},
}

// Subcommands are the commands of ctl, in the order in which help shows them.
func Subcommands() []Subcommand { return slices.Clone(subcommands[:]) }

const helpColumn = 34

func ctlUsage() string {
	var b strings.Builder
	b.WriteString("usage: sluice ctl [--admin ADDRESS] [--json] COMMAND\n\ncommands:\n")
	row := func(left, help string) {
		if len(left) < helpColumn {
			fmt.Fprintf(&b, "  %-*s%s\n", helpColumn, left, help)
		} else {
			fmt.Fprintf(&b, "  %s\n  %*s%s\n", left, helpColumn, "", help)
		}
	}
	for _, s := range subcommands {
		row(strings.TrimSpace(s.Name+" "+s.Arguments), s.Help)
	}
	b.WriteString("\noptions:\n")
	row("--admin ADDRESS", "unix:/path or host:port ("+DefaultAddress+")")
	row("--json", "print the answer as JSON")
	return b.String()
}
