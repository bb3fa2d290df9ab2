package core_test

import (
	"go/token"
	"slices"
	"strings"
	"testing"
)

// expect runs a check over a file and compares the constructs that it finds.
func expect(t *testing.T, check func(*source) []violation, name, text string, want ...string) {
	t.Helper()
	s, err := parse(token.NewFileSet(), name, text)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range check(s) {
		got = append(got, v.construct)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: found %q, want %q in\n%s", name, got, want, text)
	}
}

func TestCheckImports(t *testing.T) {
	f := func(folder, imported string, want ...string) {
		t.Helper()
		expect(t, checkImports, folder+"/x.go", "package x\nimport _ \""+module+"/"+imported+"\"\n", want...)
	}
	for _, right := range [][2]string{
		{"lb", "lb/ring"}, {"core", "core/loop"}, {"core", "lb"}, {"core/http1", "core"}, {"core/http1", "core/loop"},
		{"core/policy/jwt", "limits"}, {"core/policy/jwt", "core/policy/jwt/jwks"}, {"core/route", "core/route/radix"},
		{"core/compile", "core/policy/jwt"}, {"core/compile", "core/config"}, {"core/server", "core/compile"},
		{"core/server", "core/http1"}, {"cmd/sluice", "core/server"}, {"cmd/sluice", "core/config"}, {"cmd/sluice", "cmd/sluice/demo"},
		{"bench", "bench/peers"},
	} {
		f(right[0], right[1])
	}
	for _, wrong := range [][2]string{
		{"lb", "core"}, {"lb", "limits"}, {"tls", "core/loop"}, {"core/loop", "core"}, {"core/loop", "lb"}, {"core", "core/http1"},
		{"core", "core/config"}, {"core/http1", "core/route"}, {"core/policy/jwt", "core/policy/cors"}, {"core/config", "core"},
		{"core/config", "lb"}, {"core/observe", "core/config"}, {"core/compile", "core/server"}, {"core/admin", "core/server"},
		{"core/server", "cmd/sluice"}, {"cmd/sluice", "core/http1"}, {"bench", "core"}, {"bench", "cmd/sluice"}, {"core/http10", "core"},
		{"extra", "core"},
	} {
		want := "import"
		if wrong[0] == "extra" || wrong[0] == "core/http10" {
			want = "place"
		}
		f(wrong[0], wrong[1], want)
	}
	expect(t, checkImports, "core/http1/x_test.go", "package x\nimport _ \""+module+"/core/route\"\n")
	expect(t, checkImports, "core/http1/x.go", "package x\nimport _ \"net/url\"\nimport _ \"golang.org/x/sys/unix\"\n")
}

func TestCheckLoopSide(t *testing.T) {
	f := func(body string, want ...string) {
		t.Helper()
		const head = "package x\nimport (\"sync\"; \"time\"; \"net\"; \"os\"; \"runtime\"; \"fmt\"; \"context\"; \"log\"; clock \"time\"; \"sync/atomic\")\n"
		expect(t, checkLoopSide, "core/http1/x.go", head+body, want...)
	}
	f("type a struct { mu sync.Mutex; rw sync.RWMutex }", "sync.Mutex", "sync.RWMutex")
	f("var a sync.WaitGroup; var b sync.Cond; var c sync.Pool; var d sync.Map", "sync.WaitGroup", "sync.Cond", "sync.Pool", "sync.Map")
	f("func f() { go f() }", "go")
	f("var c chan int", "chan")
	f("func f() { c := make(chan int) }", "chan")
	f("func f() { select {} }", "select")
	f("func f() { a <- 1 }", "<-")
	f("func f() { <-a }", "<-")
	f("func f() { time.Sleep(1); clock.Sleep(1); <-time.After(1); time.NewTimer(1); time.AfterFunc(1, f) }",
		"time.Sleep", "time.Sleep", "<-", "time.After", "time.NewTimer", "time.AfterFunc")
	f("func f() { net.Dial(``, ``); net.DialTimeout(``, ``, 1); net.Listen(``, ``); net.LookupHost(``); net.ResolveTCPAddr(``, ``) }",
		"net.Dial", "net.DialTimeout", "net.Listen", "net.LookupHost", "net.ResolveTCPAddr")
	f("var d net.Dialer", "net.Dialer")
	f("func f() { os.Open(``); os.ReadFile(``); os.Getenv(``) }", "os.Open", "os.ReadFile", "os.Getenv")
	f("func f() { runtime.LockOSThread(); runtime.Goexit(); runtime.Gosched() }", "runtime.LockOSThread", "runtime.Goexit", "runtime.Gosched")
	f("func f() { fmt.Sprintf(``); fmt.Errorf(``) }", "fmt.Sprintf", "fmt.Errorf")
	f("func f() { log.Print(1); context.WithTimeout(nil, 1) }", "log.Print", "context.WithTimeout")
	f("func f(a *atomic.Int64, t time.Duration, ip net.IP) { a.Add(int64(t)); _ = time.Now() }")
	f("type os2 struct{}; func f(x os2) { x.Open() }")

	const sleeps = "package x\nimport (\"time\"; \"fmt\")\nfunc f() { time.Sleep(1); fmt.Print() }"
	expect(t, checkLoopSide, "core/x.go", sleeps, "time.Sleep", "fmt.Print")
	expect(t, checkLoopSide, "core/route/x.go", sleeps, "time.Sleep")
	expect(t, checkLoopSide, "core/route/match.go", sleeps, "time.Sleep", "fmt.Print")
	expect(t, checkLoopSide, "core/policy/jwt/x.go", sleeps, "time.Sleep", "fmt.Print")
	expect(t, checkLoopSide, "core/http1/x_test.go", sleeps)
	expect(t, checkLoopSide, "core/config/x.go", sleeps)
	expect(t, checkLoopSide, "limits/x.go", sleeps)
}

func TestExcuses(t *testing.T) {
	for _, excused := range [][2]string{{"core/loop/loop.go", "go"}, {"core/loop/dial.go", "fmt.Errorf"}, {"core/loop/watchdog.go", "select"}} {
		if excuse(excused[0], excused[1]) == "" {
			t.Errorf("%s in %s is not excused", excused[1], excused[0])
		}
	}
	for _, not := range [][2]string{{"core/loop/loop.go", "time.Sleep"}, {"core/loop/conn.go", "go"}, {"core/http1/x.go", "fmt.Errorf"}} {
		if excuse(not[0], not[1]) != "" {
			t.Errorf("%s in %s is excused", not[1], not[0])
		}
	}
}

func TestCheckSize(t *testing.T) {
	long := func(lines int) string { return "package x\n" + strings.Repeat("// x\n", lines-1) }
	expect(t, checkSize, "lb/x.go", long(maxFileLines))
	expect(t, checkSize, "lb/x.go", long(maxFileLines+1), "file")
	expect(t, checkSize, "lb/x_test.go", long(maxFileLines+1), "file")
	function := func(lines int) string { return "package x\nfunc f() {\n" + strings.Repeat("f()\n", lines-2) + "}\n" }
	expect(t, checkSize, "lb/x.go", function(maxFunctionLines))
	expect(t, checkSize, "lb/x.go", function(maxFunctionLines+1), "function")
	expect(t, checkSize, "lb/x_test.go", function(maxFunctionLines+1))
}

func TestCheckNames(t *testing.T) {
	expect(t, checkNames, "lb/x.go", "package lb\nfunc (t) init() {}")
	expect(t, checkNames, "lb/x.go", "package lb\nfunc init() {}", "init")
	expect(t, checkNames, "lb/util/x.go", "package ring", "name")
	expect(t, checkNames, "lb/ring/x.go", "package helpers", "name")
	expect(t, checkNames, "lb/ring/x_test.go", "package common_test", "name")
}

func TestCheckVariables(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		expect(t, func(s *source) []violation { return checkVariables([]*source{s}) }, "lb/x.go", "package x\nimport (\"sync\"; \"sync/atomic\"; \"net\")\n"+text, want...)
	}
	f("var a = 1\nfunc f() int { return a }")
	f("var a = 1\nfunc f() { a := 2; a = 3; a++ }")
	f("var a = 1\nfunc f(a int) { a = 3 }")
	f("var a = net.IP{}\nvar _ = sync.Mutex{}\nfunc f() { var mu sync.Mutex; mu.Lock() }")
	f("type s struct { a int }\nvar a = 1\nfunc (x *s) f() { x.a = 2 }")
	f("var a = func() { var n atomic.Int64; n.Add(1) }")
	f("var a = 1\nfunc f() { a = 2 }", "variable")
	f("var a = 1\nfunc f() { a++ }", "variable")
	f("var a []int\nfunc f() { a[1] = 2 }", "variable")
	f("var a map[int]int\nfunc f() { a[1] += 2 }", "variable")
	f("var a struct { b int }\nfunc f() { a.b, a.b = 1, 2 }", "variable", "variable")
	f("var a *int\nfunc f() { *a = 2 }", "variable")
	f("var a int\nfunc f() { for a = range 3 {} }", "variable")
	f("var a int\nvar g = func() { a = 1 }", "variable")
	f("var a atomic.Int64", "variable")
	f("var a = &sync.Pool{}", "variable")
	f("var a = make(chan int)", "variable")
	f("var a struct { mu sync.Mutex }", "variable")
}

func TestCheckDocs(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		expect(t, checkDocs, "lb/x.go", "package x\n"+text, want...)
	}
	f("// A is.\ntype A int\n// B does.\nfunc (A) B() {}\nfunc (A) String() string { return `` }\nfunc (A) c() {}")
	f("type a int\nfunc (a) B() {}")
	f("// All of them.\nconst (\nA = 1\nB = 2\n)")
	f("const (\nA = 1 // is\n// B is.\nB = 2\n)")
	f("const (\nA T = iota\nB\nc = 1\n)")
	f("const (\nA T = iota\nB\n)\nconst C = 2", "comment")
	f("const (\nA T = iota\nB = 2\n)", "comment")
	f("type A int", "comment")
	f("func A() {}", "comment")
	f("// A is.\ntype A[T any] struct{}\nfunc (*A[T]) B() {}", "comment")
	f("var A = 1", "comment")
	f("const (\nA = 1 // is\nB = 2\n)", "comment")
	expect(t, checkDocs, "lb/x_test.go", "package x\nfunc A() {}")
}
