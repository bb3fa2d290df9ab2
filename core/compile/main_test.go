package compile

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/leak"
	"github.com/sluice-gateway/sluice/core/loop"
	"github.com/sluice-gateway/sluice/core/observe"
)

// patience is how long a test waits for what must happen; only a failing test waits so long.
const patience = 10 * time.Second

// TestMain fails the run when a test leaves a goroutine of this module or a descriptor behind.
func TestMain(m *testing.M) { os.Exit(leak.Check(m.Run)) }

// bench is a registry with two running loops.
type bench struct {
	t        testing.TB
	registry *Registry
	loops    []*loop.Loop
	log      journal
}

// journal is what was logged, by whichever goroutine.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t}
	log := slog.New(slog.NewTextHandler(&b.log, nil))
	observer := observe.New(observe.Options{Loops: 2})
	gateway := core.NewGateway(&core.Snapshot{}, observer)
	var workers []*core.Worker
	for i := range 2 {
		l, err := loop.New(loop.Options{Index: i, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		b.loops = append(b.loops, l)
		workers = append(workers, gateway.NewWorker(l))
	}
	observer.Attach(b.loops)
	b.registry = NewRegistry(workers, observer.Registry(), log)
	for _, l := range b.loops {
		l.Start()
	}
	t.Cleanup(func() {
		b.registry.Close()
		for _, l := range b.loops {
			if err := l.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return b
}

// load reads a configuration of the given upstreams and routes, which begin in the third line.
func (b *bench) load(upstreams string) (*config.Config, config.Problems) {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), "sluice.yaml")
	text := "listeners: { http: { bind: \"127.0.0.1:8080\" } }\nadmin: off\n" + upstreams
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return config.Load(file)
}

// compile compiles such a configuration.
func (b *bench) compile(upstreams string) (*Compiled, error) {
	b.t.Helper()
	cfg, problems := b.load(upstreams)
	if cfg == nil {
		b.t.Fatalf("%s", problems)
	}
	return b.registry.Compile(cfg)
}

// apply puts a configuration in force, and returns when all loops know.
func (b *bench) apply(upstreams string) *Compiled {
	b.t.Helper()
	c, err := b.compile(upstreams)
	if err != nil {
		b.t.Fatal(err)
	}
	b.registry.Apply(c)
	for _, l := range b.loops {
		if err := l.Do(patience, func() {}); err != nil {
			b.t.Fatal(err)
		}
	}
	return c
}
