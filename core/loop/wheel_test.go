package loop

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

const oneTick = 1 << tickBits

// alarm is a timer of a simulation, with what the reference says of it: a deadline, and nothing else.
type alarm struct {
	sim   *simulation
	timer timer
	want  int64 // 0: off
}

// simulation runs a wheel against a naive reference, on a clock of its own.
type simulation struct {
	wheel   wheel
	now     int64
	alarms  []alarm
	fired   int
	program []byte
	asleep  int64 // how long nobody came to advance the wheel before now
	wrong   error
}

func newSimulation(alarms int, program []byte) *simulation {
	s := &simulation{now: 1, alarms: make([]alarm, alarms), program: program}
	for i := range s.alarms {
		s.alarms[i].sim = s
		s.alarms[i].timer.owner = &s.alarms[i]
	}
	return s
}

// expire checks the instant against the reference, and now and then does to the wheel what owners do meanwhile.
func (a *alarm) expire() {
	s := a.sim
	s.fired++
	switch late := s.now - a.want; {
	case a.want == 0:
		s.fail("a timer that is off has expired")
	case late < 0:
		s.fail("a timer expired %v early", time.Duration(-late))
	case late > 2*oneTick+s.asleep:
		s.fail("a timer expired %v late", time.Duration(late-s.asleep))
	}
	a.want = 0
	if s.byte()%4 == 0 {
		s.change()
	}
}

func (s *simulation) fail(format string, args ...any) {
	if s.wrong == nil {
		s.wrong = fmt.Errorf("at %v: "+format, append([]any{time.Duration(s.now)}, args...)...)
	}
}

func (s *simulation) byte() byte {
	if len(s.program) == 0 {
		return 0
	}
	b := s.program[0]
	s.program = s.program[1:]
	return b
}

// span is a duration of any magnitude: some ns up to six hours, which is beyond both levels.
func (s *simulation) span() int64 {
	exponent, mantissa := int64(s.byte())%45, int64(s.byte())
	return (256 + mantissa) << exponent >> 8 % (6 * int64(time.Hour))
}

// change sets, moves or removes a timer, in the wheel and in the reference.
func (s *simulation) change() {
	a := &s.alarms[int(s.byte())%len(s.alarms)]
	switch kind := s.byte() % 8; {
	case kind == 0:
		a.want = 0
		s.wheel.remove(&a.timer)
	case kind == 1:
		a.want = 0
		s.wheel.set(&a.timer, 0)
	case kind == 2: // at once or in the past
		a.want = max(1, s.now-s.span()%s.now)
		s.wheel.set(&a.timer, a.want)
		a.want = s.now // later than this is late
	default:
		a.want = s.now + s.span()
		s.wheel.set(&a.timer, a.want)
	}
}

// sleep lets the time pass as the loop does: it wakes for the wheel's next tick, whatever else happens, unless held.
func (s *simulation) sleep(span int64, held bool) {
	for end := s.now + span; s.now < end; {
		next := end
		if s.asleep = 0; held {
			s.asleep = span
		} else if s.wheel.timers > 0 {
			next = min(end, max(s.wheel.nextTick()<<tickBits, s.now))
		}
		s.now = next
		if s.wheel.timers == 0 { // as Loop.poll does
			s.wheel.tick = s.now >> tickBits
		} else if s.now < end || held || next>>tickBits >= s.wheel.nextTick() {
			s.wheel.advance(s.now)
		}
		s.compare()
	}
}

// compare looks for timers that should have expired by now.
func (s *simulation) compare() {
	set := 0
	for i := range s.alarms {
		a := &s.alarms[i]
		if a.want == 0 {
			continue
		}
		set++
		if late := s.now - a.want; late > 2*oneTick+s.asleep {
			s.fail("a timer is %v late and has not expired", time.Duration(late))
		}
		if a.timer.next == nil {
			s.fail("a timer that is set is not in the wheel")
		}
	}
	if s.wheel.timers < set {
		s.fail("the wheel counts %d timers, %d are set", s.wheel.timers, set)
	}
}

// run works the program off, and then lets everything expire.
func (s *simulation) run() error {
	for len(s.program) > 0 && s.wrong == nil {
		if op := s.byte(); op%3 > 0 {
			s.change()
		} else {
			s.sleep(s.span(), op%16 == 15)
		}
	}
	for s.wheel.timers > 0 && s.wrong == nil {
		s.sleep(int64(time.Hour), false)
	}
	for level := range s.wheel.used {
		for _, word := range s.wheel.used[level] {
			if word != 0 && s.wrong == nil {
				s.fail("an empty wheel has slots in use on level %d", level)
			}
		}
	}
	return s.wrong
}

// Random timers over simulated days, set, moved and removed also by owners that expire: none is early, none more than
// two ticks late.
func TestWheelAgainstReference(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, round))
		program := make([]byte, 20_000)
		for i := range program {
			program[i] = byte(r.Uint32())
		}
		s := newSimulation(1+r.IntN(200), program)
		if err := s.run(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if s.fired == 0 {
			t.Errorf("round %d: nothing has expired", round)
		}
	}
}

func FuzzWheel(f *testing.F) {
	f.Add([]byte{1, 0, 3, 20, 0, 0, 30, 0})
	f.Add([]byte{1, 0, 3, 44, 255, 0, 44, 255, 1, 0, 2, 1, 0, 0, 15, 44, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		if err := newSimulation(16, program[:min(len(program), 600)]).run(); err != nil {
			t.Fatal(err)
		}
	})
}

// Each distance, from the next nanosecond to beyond the second level, expires within its two ticks.
func TestWheelDistances(t *testing.T) {
	for _, from := range []int64{0, 1, oneTick - 1, 255 * oneTick, 256*oneTick + 1, 65535 * oneTick, 65536*oneTick + 5} {
		for _, ticks := range []int64{0, 1, 2, 254, 255, 256, 257, 511, 512, 65279, 65280, 65535, 65536, 65537, 200_000} {
			for _, by := range []int64{-1, 0, 1, oneTick / 2} {
				s := newSimulation(1, nil)
				s.sleep(from, false)
				s.alarms[0].want = max(s.now+ticks*oneTick+by, 1)
				s.wheel.set(&s.alarms[0].timer, s.alarms[0].want)
				s.sleep((ticks+3)*oneTick, false)
				if s.wrong != nil || s.fired != 1 {
					t.Fatalf("from %d, %d ticks and %d ns ahead: expired %d times: %v", from, ticks, by, s.fired, s.wrong)
				}
			}
		}
	}
}

// The end of time is a deadline like any other: it is far away.
func TestWheelFurthestDeadline(t *testing.T) {
	s := newSimulation(1, nil)
	s.alarms[0].want = math.MaxInt64
	s.wheel.set(&s.alarms[0].timer, math.MaxInt64)
	if next := s.wheel.nextTick(); next < 255<<slotBits {
		t.Errorf("it is looked at in tick %d", next)
	}
	s.sleep(int64(48*time.Hour), false)
	if s.fired != 0 || s.wrong != nil {
		t.Errorf("expired %d times: %v", s.fired, s.wrong)
	}
}

// breaking is an owner that panics.
type breaking struct{}

func (breaking) expire() { panic("broken") }

// An owner's panic does not keep the others of its slot from their expiry: they come with the next advance.
func TestWheelAfterPanicOfAnOwner(t *testing.T) {
	s := newSimulation(3, nil)
	bad := timer{owner: breaking{}}
	s.now = 5 * oneTick
	s.wheel.set(&bad, s.now)
	for i := range s.alarms {
		s.alarms[i].want = s.now
		s.wheel.set(&s.alarms[i].timer, s.now)
	}
	func() {
		defer func() { _ = recover() }()
		s.wheel.advance(s.now)
	}()
	if s.fired != 0 {
		t.Fatal("the panic came last: the test shows nothing")
	}
	s.wheel.advance(s.now)
	if s.fired != 3 || s.wrong != nil {
		t.Errorf("%d of 3 expired: %v", s.fired, s.wrong)
	}
}
