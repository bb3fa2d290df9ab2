package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/goccy/go-yaml/ast"
)

const (
	maxIncludeDepth = 8
	maxFiles        = 1024
	maxTotalBytes   = 64 << 20
	nodesPerByte    = 4       // a node of one byte and its comma are looked at less than eight times
	spareNodes      = 100_000 // that aliases may add to what the text itself can hold
)

// Env is what a configuration may ask of its surroundings. A function that is nil finds nothing.
type Env struct {
	ReadFile  func(path string) ([]byte, error) // may cut off what is over 16 MiB
	Glob      func(pattern string) ([]string, error)
	LookupEnv func(name string) (string, bool)
	ReadLarge func(path string) ([]byte, error) // of consumers; may cut off what is over 256 MiB

	ReadSecret func(path string) ([]byte, error)                       // of what refers to a file; nil: ReadFile
	ReadVault  func(v *Vault, mount, path, key string) (string, error) // its errors hold no secret
	Source     func(name, text string)                                 // is told of each file of the configuration itself; nil: nobody is
}

// Load reads the file and what it includes. It can ask no vault. The Config is nil where the problems refuse it.
func Load(path string) (*Config, Problems) { return LoadIn(path, System()) }

// LoadIn is Load with what env offers.
func LoadIn(path string, env Env) (*Config, Problems) {
	text, err := env.readFile(path)
	if err != nil {
		return nil, Problems{{Pos: Pos{File: path}, Message: "cannot read the file: " + cause(err)}}
	}
	return Parse(path, text, env)
}

// System is what the process finds: its files and its environment, but no vault.
func System() Env {
	return Env{ReadFile: readFile, Glob: filepath.Glob, LookupEnv: os.LookupEnv, ReadLarge: ReadConsumersFile}
}

// Parse reads text as the file of that name. It touches nothing but what env offers.
func Parse(name string, text []byte, env Env) (*Config, Problems) {
	return parseChunked(name, text, env, chunkBytes)
}

// parseChunked lets a test compare sizes of chunks: the result is the same for each.
func parseChunked(name string, text []byte, env Env, chunkBytes int) (*Config, Problems) {
	l := &loader{
		env:        env,
		chunkBytes: chunkBytes,
		cfg:        defaults(),
		files:      map[string]bool{},
		given:      map[string]Pos{},
		listeners:  map[string]int{},
		upstreams:  map[string]int{},
		policyAt:   map[string]int{},
		roll:       newRoll(),
		patterns:   map[string]*regexp.Regexp{},
		maxNodes:   spareNodes,
	}
	l.file(name, text, 0)
	l.check()
	problems := l.result(l.sources)
	if problems.Refused() {
		return nil, problems
	}
	return l.cfg, problems
}

// readFile reads at most one byte more than is accepted.
func readFile(path string) ([]byte, error) {
	return readUpTo(path, maxFileBytes+int64(len(byteOrderMark)))
}

// readUpTo reads a file, or a pipe that somebody writes to. It does not wait for that somebody to come: a FIFO without a writer is empty.
func readUpTo(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := syscall.SetNonblock(int(f.Fd()), false); err != nil { // now that it is open, what the writer has yet to say is waited for
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// cause returns an error's text without the path, which stands in the position already.
func cause(err error) string {
	var failure *fs.PathError
	if errors.As(err, &failure) {
		err = failure.Err
	}
	return clip(err.Error())
}

// defaults returns a configuration without listeners, upstreams and routes.
func defaults() *Config {
	return &Config{
		Secrets:   Secrets{Refresh: defaultRefresh},
		Drain:     Drain{Time: defaultDrain, Tunnels: defaultDrain},
		Log:       Log{Level: "info", Format: "text"},
		AccessLog: AccessLog{Sample: 1, Queue: 65536},
		Admin:     Admin{Bind: Bind{Path: defaultAdminPath}},
		Tuning:    defaultTuning(),
	}
}

// loader holds what one Parse has read so far, over all files.
type loader struct {
	collector
	suggester
	env        Env
	chunkBytes int
	cfg        *Config
	sources    []*source
	bytes      int
	files      map[string]bool // true while the file is being read, false after
	given      map[string]Pos  // keys of the document that stand once in all files
	listeners  map[string]int  // index in cfg, as for upstreams
	upstreams  map[string]int
	policyAt   map[string]int
	roll       *roll
	fileAt     Pos         // of consumers_file
	redirects  []reference // of listeners
	matched    []reference // listeners that matches name
	names      []namedRoute
	patterns   map[string]*regexp.Regexp
	nodes      int
	maxNodes   int
	published  []Pos // where routes publish the keys of identity tokens
	exhausted  bool
	broken     bool // a part of the text was not read, and what seems missing may stand there
}

// reference is a listener's name where it was used.
type reference struct {
	name string
	pos  Pos
	from int // index of the listener that redirects
}

func (l *loader) problemAt(at Pos, hint, format string, args ...any) {
	l.add(Problem{Pos: at, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (l *loader) warnAt(at Pos, hint, format string, args ...any) {
	l.add(Problem{Pos: at, Warning: true, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// file reads one file's text into the configuration.
func (l *loader) file(name string, text []byte, depth int) {
	src, problem := newSource(name, text)
	l.sources = append(l.sources, src)
	l.files[filepath.Clean(name)] = true
	defer func() { l.files[filepath.Clean(name)] = false }()
	l.bytes += len(src.text)
	l.maxNodes += nodesPerByte * len(src.text)
	if l.bytes > maxTotalBytes {
		problem = &Problem{Pos: Pos{File: name}, Message: "the files together are larger than 64 MiB"}
	}
	if problem != nil {
		l.broken = true
		l.add(*problem)
		return
	}
	segments, problem := split(src, l.chunkBytes)
	if problem != nil {
		l.broken = true
		l.add(*problem)
	}
	if l.env.Source != nil {
		l.env.Source(name, src.text)
	}
	l.reserve(segments)
	d := &decoder{loader: l, src: src, depth: depth, anchors: map[string]ast.Node{}}
	hasAnchors := strings.Contains(src.text, "&")
	parseSegments(name, segments, func(seg segment, tree parsed) {
		for _, problem := range tree.problems {
			l.broken = true
			l.add(problem)
		}
		for _, body := range tree.bodies {
			if hasAnchors {
				d.collectAnchors(body)
			}
			if seg.of == "" {
				d.document(body, seg.follow)
			} else {
				d.documentKey(seg.of, body)
			}
		}
	})
}

const documentKeys = "include secrets loops drain log access_log admin tuning cluster identity resolvers listeners upstreams policies consumers consumers_file routes"

func isDocumentKey(key string) bool {
	for w := range strings.FieldsSeq(documentKeys) {
		if key == w {
			return true
		}
	}
	return false
}

// document reads keys of the document. follow: the last has no value here, because its items are given to documentKey.
func (d *decoder) document(n ast.Node, follow bool) {
	ok := d.mapping("the file", n, documentKeys, func(key string, k, v ast.Node) bool {
		if !isDocumentKey(key) {
			return false
		}
		pos := d.at(k)
		once := key
		if mergeable := key == "include" || key == "listeners" || key == "upstreams" || key == "policies" || key == "consumers" || key == "routes"; mergeable {
			once = key + " in " + d.src.name
		}
		if first, twice := d.given[once]; twice {
			d.problemAt(pos, "", "%q is given twice; first at %s", key, first)
			return true
		}
		d.given[once] = pos
		if _, empty := v.(*ast.NullNode); !empty || !follow {
			d.documentKey(key, v)
		}
		return true
	})
	d.broken = d.broken || !ok
}

func (d *decoder) documentKey(key string, v ast.Node) {
	cfg := d.cfg
	switch key {
	case "include":
		d.list(key, v, d.include)
	case "secrets":
		d.secrets(key, v)
	case "loops":
		if !d.is(v, "auto") {
			d.integer(key, v, 0, 1024, &cfg.Loops)
		}
	case "drain":
		d.drain(key, v)
	case "log":
		d.log(key, v)
	case "access_log":
		d.accessLog(key, v)
	case "admin":
		d.admin(key, v)
	case "resolvers":
		d.resolvers(key, v, &cfg.Resolvers)
	case "tuning":
		d.tuning(key, v)
	case "cluster":
		d.cluster(key, v)
	case "identity":
		d.identity(key, v)
	case "listeners":
		d.entries(key, v, d.listener)
	case "upstreams":
		d.entries(key, v, d.upstream)
	case "policies":
		d.entries(key, v, d.policy)
	case "consumers":
		d.entries(key, v, d.consumer)
	case "consumers_file":
		d.consumersFile(key, v)
	case "routes":
		d.routes(v)
	}
}

// include reads the files of one pattern, relative to the file that holds it, in the order of their names.
func (d *decoder) include(n ast.Node) {
	var pattern string
	if !d.text("include", n, &pattern) {
		return
	}
	if pattern == "" || strings.ContainsRune(pattern, 0) {
		d.problem(n, "", "cannot include %q: this is no path", pattern)
		return
	}
	if d.depth >= maxIncludeDepth {
		d.problem(n, "", "files include each other more than %d deep", maxIncludeDepth)
		return
	}
	path := pattern
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(d.src.name), pattern)
	}
	paths := []string{path}
	if strings.ContainsAny(pattern, "*?[") {
		var err error
		if paths, err = d.env.glob(path); err != nil {
			d.problem(n, "", "cannot include %q: %s", clip(pattern), cause(err))
			return
		}
		if !strings.HasPrefix(filepath.Base(path), ".") { // what editors and copies under way leave beside a file is not meant
			paths = slices.DeleteFunc(paths, func(path string) bool { return strings.HasPrefix(filepath.Base(path), ".") })
		}
	}
	for _, path := range paths {
		if reading, seen := d.files[filepath.Clean(path)]; seen {
			what := "it is included already"
			if reading {
				what = "it would include itself"
			}
			d.problem(n, "", "cannot include %q: %s", clip(path), what)
			continue
		}
		if len(d.sources) >= maxFiles {
			d.problem(n, "", "there are more than %d files", maxFiles)
			return
		}
		text, err := d.env.readFile(path)
		if err != nil {
			d.broken = true
			d.problem(n, "", "cannot include %q: %s", clip(path), cause(err))
			continue
		}
		d.file(path, text, d.depth+1)
	}
}

func (e Env) readFile(path string) ([]byte, error) {
	if e.ReadFile == nil {
		return nil, fs.ErrNotExist
	}
	return e.ReadFile(path)
}

func (e Env) readSecret(path string) ([]byte, error) {
	if e.ReadSecret == nil {
		return e.readFile(path)
	}
	return e.ReadSecret(path)
}

func (e Env) glob(pattern string) ([]string, error) {
	if e.Glob == nil {
		return nil, nil
	}
	return e.Glob(pattern)
}

func (e Env) lookupEnv(name string) (string, bool) {
	if e.LookupEnv == nil {
		return "", false
	}
	return e.LookupEnv(name)
}
