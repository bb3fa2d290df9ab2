package health

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A script of testdata tells a machine's story and can be read without knowing the code. Its first line names the machine and
// the settings that are not the default; the others are
//
//	time  event  [xN]  [-> what comes of it]
//
// Time is that since the start; +t is so long after the line before, nothing stands for the same time. xN repeats the event.
// A line without an arrow says that nothing comes of it. # begins a comment.

// player runs one machine.
type player interface {
	// play gives what comes of an event, "" for nothing.
	play(event []string, now int64) string
}

// players make the machines, by the name in a script's first line.
var players = map[string]func(s *settings) player{
	"check":   newCheckPlayer,
	"outlier": newOutlierPlayer,
	"breaker": newBreakerPlayer,
	"canary":  newCanaryPlayer,
}

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < len(players) {
		t.Fatalf("%d scripts found: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if runScript(t, string(text)) == 0 {
				t.Error("nothing was run")
			}
		})
	}
}

func runScript(t *testing.T, text string) (lines int) {
	t.Helper()
	var p player
	now := int64(0)
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		head, want, _ := strings.Cut(line, "->")
		words := strings.Fields(head)
		if len(words) == 0 {
			continue
		}
		if p == nil {
			s := &settings{t: t, words: words[1:]}
			p = players[words[0]](s)
			if len(s.words) > 0 {
				t.Fatalf("line %d: unknown settings %q", i+1, s.words)
			}
			continue
		}
		if d, err := time.ParseDuration(strings.TrimPrefix(words[0], "+")); err == nil {
			if strings.HasPrefix(words[0], "+") {
				d += time.Duration(now)
			}
			if int64(d) < now {
				t.Fatalf("line %d: time goes back", i+1)
			}
			now, words = int64(d), words[1:]
		}
		times := 1
		if n, ok := strings.CutPrefix(words[len(words)-1], "x"); ok {
			times, _ = strconv.Atoi(n)
			words = words[:len(words)-1]
		}
		var got []string
		for range times {
			if s := p.play(words, now); s != "" {
				got = append(got, s)
			}
		}
		if got, want := strings.Join(slices.Compact(got), "; "), strings.TrimSpace(want); got != want {
			t.Errorf("line %d: %s\n got %s\nwant %s", i+1, strings.TrimSpace(head), got, want)
		}
		lines++
	}
	return lines
}

// settings are the key=value words of a script's first line. Each is taken once.
type settings struct {
	t     *testing.T
	words []string
}

func (s *settings) text(key string, to *string) bool {
	for i, w := range s.words {
		if v, ok := strings.CutPrefix(w, key+"="); ok {
			s.words = slices.Delete(s.words, i, i+1)
			*to = v
			return true
		}
	}
	return false
}

func (s *settings) duration(key string, to *time.Duration) {
	var v string
	if s.text(key, &v) {
		d, err := time.ParseDuration(v)
		if err != nil {
			s.t.Fatal(err)
		}
		*to = d
	}
}

func (s *settings) integer(key string, to *int) {
	var v string
	if s.text(key, &v) {
		n, err := strconv.Atoi(v)
		if err != nil {
			s.t.Fatal(err)
		}
		*to = n
	}
}

func (s *settings) number(key string, to *float64) {
	var v string
	if s.text(key, &v) {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		*to = f
	}
}

func (s *settings) flag(key string, to *bool) {
	var v string
	if s.text(key, &v) {
		*to = v == "yes"
	}
}

func (s *settings) must(err error) {
	if err != nil {
		s.t.Fatal(err)
	}
}

// dice always shows the same.
type dice uint64

func (d dice) Uint64() uint64 { return uint64(d) }
