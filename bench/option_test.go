package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestOptionScenarios finds every option in one configuration of a pair, and nothing of it in the other, which is equal otherwise.
func TestOptionScenarios(t *testing.T) {
	seen := map[string]bool{}
	all, err := chooseScenarios("", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		pair := s.against(allPeers("sluice"))
		if seen[s.name] || !strings.HasPrefix(s.name, optionPrefix) || len(pair) != 2 || pair[0].plain || !pair[1].plain {
			t.Fatalf("%s: twice, or compared with %+v", s.name, pair)
		}
		seen[s.name] = true
		r := &rig{}
		var texts [2]string
		for i, p := range pair {
			at, err := r.site(s, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			at.Listen, at.Dir = "127.0.0.1:1", t.TempDir()
			path, err := p.writeConfig(at)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts[i] = strings.ReplaceAll(string(text), at.Dir, "")
		}
		for _, option := range []string{s.option.listener, s.option.upstream} {
			line := "    socket: { required: true, " + option + " }\n"
			if option != "" && !strings.Contains(texts[0], line) {
				t.Errorf("%s: %q is not in\n%s", s.name, line, texts[0])
			}
			texts[0] = strings.Replace(texts[0], line, "", 1)
		}
		if process := "tuning: { " + s.option.process + " }\n"; s.option.process != "" {
			if !strings.Contains(texts[0], process) {
				t.Errorf("%s: %q is not in\n%s", s.name, process, texts[0])
			}
			texts[0] = strings.Replace(texts[0], process, "", 1)
		}
		if texts[0] != texts[1] {
			t.Errorf("%s: the two differ by more than the option:\n%s\nand\n%s", s.name, texts[0], texts[1])
		}
	}
	for _, name := range []string{"defer_accept-new", "fast_open-new", "notsent_lowat-1m", "quickack-off-keep", "incoming_cpu-new", "steer-new", "busy_poll-keep", "buffers-1m", "busy_polling-one"} {
		if !seen[optionPrefix+name] {
			t.Errorf("no scenario %s", optionPrefix+name)
		}
	}
	one, err := chooseScenarios("option-steer-new", false)
	if err != nil || len(one) != 1 || !one[0].option.spread {
		t.Errorf("%+v, %v", one, err)
	}
	for _, s := range allScenarios() {
		if strings.HasPrefix(s.name, optionPrefix) {
			t.Errorf("%s is run unless it is asked for", s.name)
		}
	}
}

// TestOptionReport holds the ratios against what the runs say.
func TestOptionReport(t *testing.T) {
	all, err := chooseScenarios("option-steer-new", false)
	if err != nil {
		t.Fatal(err)
	}
	run := func(micros float64, requests int) sample {
		return sample{value: micros, load: loadResult{requests: requests, elapsed: time.Second}}
	}
	m := measurement{scenario: all[0], peers: all[0].against(allPeers("sluice")), samples: [][]sample{
		{run(8, 300), run(9, 300), run(10, 300)}, {run(10, 100), run(12, 200), run(14, 300)}}}
	text := report{results: []measurement{m}}.markdown()
	want := "| option-steer-new | `steer: true` | – | – | 9.00 (8.00) | 12.00 (10.00) | 0.75 | 0.80 | 1.50 |\n"
	if !strings.Contains(text, want) {
		t.Errorf("got\n%s\nwant the line\n%s", text, want)
	}
}

// TestPlainConnections makes connections without TLS for one request each, with the request in the SYN where the kernel takes it.
func TestPlainConnections(t *testing.T) {
	address := testServer(t, wire{}, nil)
	for _, fastOpen := range []bool{false, true} {
		s := keptScenario()
		s.handshake, s.connections, s.option.fastOpen = handshakeFull, 4, fastOpen
		args := handshakesArgs(&rig{}, s, address, 1)
		if strings.Contains(strings.Join(args, " "), "-certificate") || strings.Contains(strings.Join(args, " "), "-fast-open") != fastOpen {
			t.Errorf("arguments %q", args)
		}
		var out strings.Builder
		if err := makeHandshakes(t.Context(), args[1:], nil, &out); err != nil {
			t.Fatal(err)
		}
		got, err := parseHandshakes(s, []byte(out.String()))
		if err != nil || got.requests == 0 || got.p50 == 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	s := keptScenario()
	s.handshake, s.connections, s.reply.bodyBytes = handshakeFull, 1, 7 // not what is answered
	var out strings.Builder
	if err := makeHandshakes(t.Context(), handshakesArgs(&rig{}, s, address, 1)[1:], nil, &out); err != nil {
		t.Fatal(err)
	}
	if _, err := parseHandshakes(s, []byte(out.String())); err == nil || !strings.Contains(err.Error(), "content length "+strconv.Itoa(smallBodyBytes)) {
		t.Errorf("a wrong answer passes: %v", err)
	}
}
