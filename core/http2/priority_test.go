package http2

import (
	"slices"
	"testing"
)

func TestPriorityUpdate(t *testing.T) {
	before := priority{urgency: 5, incremental: true}
	f := func(value string, want priority, wantSaid bool) {
		t.Helper()
		if got, said := before.update([]byte(value)); got != want || said != wantSaid {
			t.Errorf("%q: %+v, %v; want %+v, %v", value, got, said, want, wantSaid)
		}
	}
	change := func(value string, urgency uint8, incremental bool) {
		t.Helper()
		f(value, priority{urgency, incremental}, true)
	}
	same := func(value string) {
		t.Helper()
		f(value, before, false)
	}
	change("u=0", 0, true)
	change("u=7", 7, true)
	change("  u=2  ", 2, true)
	change("i", 5, true)
	change("i=?1", 5, true)
	change("i=?0", 5, false)
	change("u=1, i=?0", 1, false)
	change("i=?0 ,\tu=1", 1, false)
	change("u=1,i=?0,u=4,i", 4, true) // the last of a name counts
	change("u=1;x;y=2.5; z=\"a\\\"b\";t=:YQ==:, i=?0;x=tok/en:*", 1, false)
	change("a=1, u=3, *b=(1 \"2\";q=3 tok), i=?0", 3, false)
	change("u=-0", 0, true)
	change("u=007", 7, true)
	change("u=8, i=?0", 5, false) // out of range: not understood
	change("u=\"1\", i=?0", 5, false)
	change("u, i=?0", 5, false)
	change("u=1, i=1", 1, true)
	change("u=1, i=yes", 1, true)
	for _, value := range []string{
		"", " ", "u=8", "u=-1", "u=1.0", "x", "x=(a b)", "urgency=1", "uu=1", "i=1", "I", "u=?1",
		"U=1", "u=1,", "u=1, ", "u=1,,i", ",u=1", "u=1 i", "u= 1", "u =1", "u=", "u=1;", "u=1;=2", "u=1;X", "u=1;x=", "u=1,i=?2", "u=1,i=?",
		"u=1\x00", "\tu=1", "u=1\t;x", "u=1, x=\"a", "u=1, x=\"\\a\"", "u=1, x=\"\x7f\"", "u=1, x=:a", "u=1, x=:a-b:", "u=1, x=(1", "u=1, x=(1,2)",
		"u=1, x=(\"a\"\"b\")", "u=1, x=-", "u=1, x=1.", "u=1, x=1.2345", "u=1, x=1234567890123.1", "u=1, x=1234567890123456", "u=1, x=@1", "u=1, x=ä",
	} {
		same(value)
	}
}

// FuzzPriority shows that nothing that can come makes a priority that does not exist.
func FuzzPriority(f *testing.F) {
	for _, s := range []string{"u=1, i", "u=9", "x=(a \"b\";c=:YQ==:);d=?0, i=?0", "u=1;a=-1.5"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		kept := slices.Clone(value)
		defaultPriority := priority{urgency: defaultUrgency}
		p, said := defaultPriority.update(value)
		if p.urgency > 7 || !said && p != defaultPriority {
			t.Errorf("%q: %+v, %v", value, p, said)
		}
		if !slices.Equal(kept, value) {
			t.Errorf("%q was changed", kept)
		}
		if again, saidAgain := p.update(value); again != p || saidAgain != said {
			t.Errorf("%q: %+v, then %+v", value, p, again)
		}
	})
}

// TestPriorityForetold shows what becomes of updates that come before their stream: the last of each counts, and only so many are kept.
func TestPriorityForetold(t *testing.T) {
	defaultPriority := priority{urgency: defaultUrgency}
	c := &conn{streams: map[uint32]*stream{}, last: 4}
	for id := uint32(0); id < 40; id++ {
		c.prioritise(id, []byte("u=6"))
	}
	c.prioritise(39, []byte("i"))   // says that the urgency is the default
	c.prioritise(37, []byte("u=9")) // says nothing
	f := func(id uint32, want priority, wantPreferred bool) {
		t.Helper()
		s := &stream{conn: c, id: id, priority: defaultPriority}
		if s.foresaid(); s.priority != want || s.preferred != wantPreferred {
			t.Errorf("stream %d: %+v, %v", id, s.priority, s.preferred)
		}
	}
	f(39, priority{3, true}, true)
	f(39, defaultPriority, false) // it was used up
	f(37, priority{urgency: 6}, true)
	f(25, priority{urgency: 6}, true)
	f(23, defaultPriority, false)
	f(38, defaultPriority, false)
	f(3, defaultPriority, false)
}
