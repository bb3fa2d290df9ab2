package core_test

import (
	"fmt"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// This file is the policy: which package may import which, what may not be done on a loop, how long a file may be. It is
// not edited to make a build pass: an exception is a line in a table with the reason why it is none.

// module is the path of the module's root.
const module = "github.com/sluice-gateway/sluice"

const (
	maxFileLines     = 500
	maxFunctionLines = 80
)

// mechanisms know no HTTP message and import nothing of ours.
var mechanisms = []string{"lb", "limits", "health", "tls", "tuning", "systemd"}

// stages import core, core/loop and mechanisms, never one another.
var stages = []string{"core/listen", "core/http1", "core/http2", "core/route", "core/policy", "core/upstream", "core/probe", "core/observe", "core/admin"}

// above is what the packages at the top may import, besides core, core/loop and mechanisms.
var above = map[string][]string{
	"core/compile": append([]string{"core/config", "core/discovery"}, stages...),
	"core/server":  append([]string{"core/config", "core/compile"}, stages...),
	"cmd":          {"core/config", "core/compile", "core/admin", "core/server"},
}

// bannedNames say nothing about what a package is for.
var bannedNames = []string{"util", "utils", "common", "helper", "helpers", "type", "types", "model", "models", "misc", "base"}

// loopSide are the folders whose code runs on a loop, with all below them.
var loopSide = []string{"core/loop", "core/listen", "core/http1", "core/http2", "core/route", "core/upstream", "core/policy", "core/observe", "lb"}

// hot are the files and folders on the path of every request, where formatting has no place.
var hot = []string{"core/http1", "core/http2", "core/loop", "core/upstream", "core/policy", "lb", "core/listen/port.go", "core/listen/proxy.go",
	"core/listen/proxyconn.go", "core/route/match.go", "core/observe/cells.go"}

// offLoop are the files in those folders of which nothing runs on a loop.
var offLoop = []struct{ file, reason string }{
	{"core/loop/watchdog.go", "looks at the loops from outside, on a goroutine of its own"},
	{"core/listen/sockets.go", "opens listening sockets at start and reload"},
	{"core/listen/unixsocket.go", "opens listening sockets at start and reload"},
	{"core/observe/accesslog.go", "the writer's goroutine; what loops hand to it is theirs"},
	{"core/observe/destination.go", "files and sockets of the access log's writer"},
	{"core/observe/errorlog.go", "the error log's writer"},
	{"core/observe/scrape.go", "answers a scrape, on the goroutine of the admin server"},
	{"core/observe/registry.go", "changed by a reload only"},
}

// allowed are the constructs that are right where they are, although they are forbidden on a loop.
var allowed = []struct{ file, construct, reason string }{
	{"core/loop/loop.go", "go", "Start, and the loop's next life after a Goexit"},
	{"core/loop/loop.go", "sync.Once", "Start is called by whoever makes the loop, before it runs"},
	{"core/loop/loop.go", "chan", "tells Stop, which is not on the loop, of the end"},
	{"core/loop/loop.go", "<-", "Stop waits, which is not called on the loop"},
	{"core/loop/gate.go", "os.File", "holds the epoll instance for Go's netpoller"},
	{"core/loop/gate.go", "os.NewFile", "holds the epoll instance for Go's netpoller"},
	{"core/loop/loop.go", "runtime.Gosched", "gives awaited functions a processor, once a turn"},
	{"core/loop/loop.go", "fmt", "errors of New and of the loop's end; the text of a panic"},
	{"core/loop/post.go", "go", "Await's goroutine"},
	{"core/loop/post.go", "chan", "Do waits for a loop from elsewhere"},
	{"core/loop/post.go", "<-", "Do waits for a loop from elsewhere"},
	{"core/loop/post.go", "select", "Do waits for a loop from elsewhere"},
	{"core/loop/post.go", "time.NewTimer", "Do waits for a loop from elsewhere"},
	{"core/loop/post.go", "fmt", "the text of a panic"},
	{"core/loop/accept.go", "fmt", "the error of a socket that cannot be watched"},
	{"core/loop/conn.go", "fmt", "the error of a socket that cannot be watched"},
	{"core/loop/coroutine.go", "fmt", "the name of a late or panicking task"},
	{"core/loop/dial.go", "fmt", "errors of a dial that failed"},
	{"core/listen/port.go", "fmt", "the error of Listen, at start and reload"},
	{"core/observe/observe.go", "sync.Mutex", "between operators who change what is debugged; loops only load the result"},
	{"core/loop/splice.go", "fmt", "the error of a pipe that cannot be made"},
}

// tree reads all Go files of the module, test data and hidden folders apart.
func tree(t *testing.T) []*source {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var all []*source
	set := token.NewFileSet()
	err = filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		if d.IsDir() {
			if base := d.Name(); name != root && (base == "testdata" || base[0] == '.' || base[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		s, err := parse(set, filepath.ToSlash(rel), string(text))
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d files were found under %s", len(all), root)
	}
	return all
}

func report(t *testing.T, all []violation) {
	t.Helper()
	for _, v := range all {
		t.Error(v)
	}
}

func TestImports(t *testing.T) {
	for _, s := range tree(t) {
		report(t, checkImports(s))
	}
}

func TestLoopSide(t *testing.T) {
	used := map[string]bool{}
	for _, s := range tree(t) {
		for _, v := range checkLoopSide(s) {
			if excused := excuse(s.path, v.construct); excused != "" {
				used[excused] = true
				continue
			}
			t.Error(v)
		}
	}
	for _, o := range offLoop {
		if !used[o.file] {
			t.Errorf("%s needs no exception from the rules for loops: remove it from offLoop", o.file)
		}
	}
	for _, a := range allowed {
		if !used[a.file+" "+a.construct] {
			t.Errorf("%s has no %s: remove it from allowed", a.file, a.construct)
		}
	}
}

// excuse gives the entry of the tables that excuses a construct, "" for none.
func excuse(file, construct string) string {
	for _, o := range offLoop {
		if o.file == file {
			return o.file
		}
	}
	for _, a := range allowed {
		if a.file == file && (a.construct == construct || a.construct == "fmt" && strings.HasPrefix(construct, "fmt.")) {
			return a.file + " " + a.construct
		}
	}
	return ""
}

func TestSizesAndNames(t *testing.T) {
	for _, s := range tree(t) {
		report(t, checkSize(s))
		report(t, checkNames(s))
	}
}

func TestNoMutablePackageVariables(t *testing.T) {
	packages := map[string][]*source{}
	for _, s := range tree(t) {
		if !s.test {
			packages[path.Dir(s.path)] = append(packages[path.Dir(s.path)], s)
		}
	}
	for _, p := range packages {
		report(t, checkVariables(p))
	}
}

func TestExportedIsDocumented(t *testing.T) {
	for _, s := range tree(t) {
		report(t, checkDocs(s))
	}
}

// violation is a breach of a rule.
type violation struct {
	at        string // file:line
	construct string
	text      string
}

func (v violation) String() string { return fmt.Sprintf("%s: %s: %s", v.at, v.construct, v.text) }
