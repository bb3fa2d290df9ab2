package config

import (
	"strings"
	"testing"
)

// TestProcessors reads lists of processors as the kernel's documentation has them (admin-guide/kernel-parameters, cpu lists).
func TestProcessors(t *testing.T) {
	const rest = "\nlisteners: { a: { bind: \":80\" } }\nroutes: [{ match: /, respond: {} }]\n"
	f := func(text, want string) {
		t.Helper()
		cfg := mustParse(t, "tuning: { cpus: "+text+" }"+rest)
		if cfg.Tuning.CPUs != want || cfg.Tuning.CPUAt != (Pos{File: "sluice.yaml", Line: 1, Column: 17}) {
			t.Errorf("%s: %q at %v", text, cfg.Tuning.CPUs, cfg.Tuning.CPUAt)
		}
		if again := mustParse(t, string(cfg.Dump())); again.Tuning.CPUs != want {
			t.Errorf("%s: the dump says %q", text, again.Tuning.CPUs)
		}
	}
	f("3", "3")
	f("0-3", "0-3")
	f(`"2-5,8"`, "2-5,8")
	f(`"8, 5,2-4,3"`, "2-5,8")
	f(`"0-15:1/2"`, "0,2,4,6,8,10,12,14")
	f(`"0-10:2/4,1023"`, "0-1,4-5,8-9,1023")
	f(`"1000-1023"`, "1000-1023")
	for _, bad := range []string{"", ",", "1,", "3-2", "-1", "1024", "0-1024", "0-4:0/2", "0-4:3/2", "0-4:1", "4:1/2", "0x1", "all", "0-4:1/0", strings.Repeat("0-1023,", 600) + "0"} {
		_, problems := Parse("sluice.yaml", []byte("tuning: { cpus: \""+bad+"\" }"+rest), Env{})
		if !strings.Contains(problems.String(), `sluice.yaml:1:17: "cpus" must be a list of processors from 0 to 1023`) {
			t.Errorf("%.30q: %s", bad, problems)
		}
	}
	if cfg := mustParse(t, "loops: auto"+rest); cfg.Loops != 0 || cfg.Tuning.CPUs != "" {
		t.Errorf("%d loops on %q", cfg.Loops, cfg.Tuning.CPUs)
	}
	if cfg := mustParse(t, "tuning: off"+rest); !strings.Contains(string(cfg.Dump()), "tuning: off\n") {
		t.Errorf("the dump says\n%s", cfg.Dump())
	}
}

// Garbage is collected by how fast it grows, unless the file says otherwise.
func TestGCPercent(t *testing.T) {
	const rest = "\nlisteners: { a: { bind: \":80\" } }\nroutes: [{ match: /, respond: {} }]\n"
	for text, want := range map[string]Tuning{
		"":                             {GCAuto: true},
		"tuning: auto":                 {GCAuto: true},
		"tuning: { shed_above: 70% }":  {GCAuto: true},
		"tuning: { gc_percent: auto }": {GCAuto: true},
		"tuning: { gc_percent: 300 }":  {GCPercent: 300},
		"tuning: off":                  {},
	} {
		cfg := mustParse(t, text+rest)
		if got := cfg.Tuning; got.GCAuto != want.GCAuto || got.GCPercent != want.GCPercent {
			t.Errorf("%q: %+v", text, got)
		}
		again := mustParse(t, string(cfg.Dump()))
		if again.Tuning != cfg.Tuning {
			t.Errorf("%q is dumped as %+v", text, again.Tuning)
		}
	}
}
