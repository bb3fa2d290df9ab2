package compile

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core/config"
)

// consumerLines are n consumers, each with a key, a group and a tier.
func consumerLines(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "{\"name\":\"consumer-%d\",\"groups\":[\"partners\"],\"tier\":\"gold\",\"keys\":[\"sha256:%x\"]}\n", i, sha256.Sum256(fmt.Append(nil, "key-", i)))
	}
	return b.Bytes()
}

// identifiedLines are consumers whose keys have ids.
func identifiedLines(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "{\"name\":\"consumer-%d\",\"groups\":[\"partners\"],\"tier\":\"gold\",\"keys\":[{\"id\":\"key_%d\",\"key\":\"sha256:%x\"}]}\n",
			i, i, sha256.Sum256(fmt.Appendf(nil, "key_%d_secret", i)))
	}
	return b.Bytes()
}

const consumersConfig = "listeners: { a: { bind: \"127.0.0.1:0\" } }\nconsumers: { fixed: { keys: \"sha256:%x\" } }\nconsumers_file: consumers.jsonl\nroutes: [{ match: /*, respond: {} }]\n"

func writeConsumers(t *testing.T, text []byte) (file, consumers string) {
	t.Helper()
	folder := t.TempDir()
	file, consumers = filepath.Join(folder, "sluice.yaml"), filepath.Join(folder, "consumers.jsonl")
	for name, text := range map[string][]byte{file: fmt.Appendf(nil, consumersConfig, sha256.Sum256([]byte("fixed"))), consumers: text} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file, consumers
}

func loadConsumers(t *testing.T, file string) *consumers {
	t.Helper()
	cfg, problems := config.Load(file)
	if cfg == nil {
		t.Fatal(problems)
	}
	r := &Registry{}
	c := r.begin(cfg)
	if err := r.consumersOf(c); err != nil {
		t.Fatal(err)
	}
	return c.consumers
}

func processorTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestConsumersLoad holds the time in which a hundred thousand are there.
func TestConsumersLoad(t *testing.T) {
	const n = 100_000
	f := func(lines []byte, key, id string) {
		t.Helper()
		file, _ := writeConsumers(t, lines)
		before := processorTime(t)
		c := loadConsumers(t, file)
		took := processorTime(t) - before // wall time tells of other programs too
		d := c.directory.Directory()
		if who := d.ByKey([]byte(key)); d.Len() != n+1 || who == nil || who.Name != "consumer-99999" || who.KeyID != id {
			t.Errorf("%d consumers, and %+v", d.Len(), who)
		}
		if took > 2*time.Second && !raceDetector {
			t.Errorf("%d consumers took %s", n, took)
		}
		t.Log(took)
	}
	f(consumerLines(n), "key-99999", "")
	f(identifiedLines(n), "key_99999_secret", "key_99999")
}

// TestConsumersWatch changes the file: what is right takes effect, what is wrong leaves all as it is.
func TestConsumersWatch(t *testing.T) {
	file, path := writeConsumers(t, consumerLines(2))
	c := loadConsumers(t, file)
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	before := c.directory.Directory()
	f := func(text []byte, known, unknown, logged string, failures uint64) {
		t.Helper()
		log.Reset()
		if text != nil {
			if err := os.WriteFile(path+".next", text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".next", path); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 { // what is seen changed is read at the next look, and then nothing is new
			c.file.look(logger)
		}
		d := c.directory.Directory()
		if d.ByKey([]byte("fixed")) == nil || d.ByKey([]byte(known)) == nil || unknown != "" && d.ByKey([]byte(unknown)) != nil {
			t.Errorf("%d consumers", d.Len())
		}
		if got := log.String(); !strings.Contains(got, logged) || logged == "" && got != "" {
			t.Errorf("log: %s", got)
		}
		if c.file.failures != failures {
			t.Errorf("%d failures, want %d", c.file.failures, failures)
		}
	}
	f(nil, "key-0", "key-2", "", 0)
	if c.directory.Directory() != before {
		t.Error("a file that has not changed was put in force again")
	}
	f(consumerLines(3), "key-2", "", "read again", 0)
	f(consumerLines(1), "key-0", "key-2", "read again", 0)
	f([]byte("{\"name\":\"x\"\n"), "key-0", "key-2", "consumers.jsonl:1:12: the object does not end", 1)
	f(fmt.Appendf(nil, "{\"name\":\"x\",\"keys\":[\"sha256:%x\"]}\n", sha256.Sum256([]byte("fixed"))), "key-0", "", `have a credential in common`, 2)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f(nil, "key-0", "", "no such file", 3)
	f(nil, "key-0", "", "", 3) // once is enough
	f(consumerLines(1), "key-0", "key-2", "right again", 3)
	f(consumerLines(3), "key-2", "", "read again", 3)
}

// TestConsumersFileSignatures: public keys may stand in the file, secrets may not.
func TestConsumersFileSignatures(t *testing.T) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	file, _ := writeConsumers(t, fmt.Appendf(nil, `{"name":"a","signatures":[{"id":"k","key":%s}]}`+"\n", text))
	c := loadConsumers(t, file)
	s := c.directory.Directory().Signer("k")
	if s == nil || s.Consumer.Name != "a" || !public.Equal(s.Key.(ed25519.PublicKey)) {
		t.Errorf("%+v", s)
	}
	for wrong, want := range map[string]string{
		`{"id":"k","secret":"0123456789012345678901234567890123"}`: "a secret is given by reference",
		`{"id":"k","key":"-----BEGIN"}`:                            "this is no public key in PEM",
		`{"id":"k"}`:                                               `has no "key"`,
		fmt.Sprintf(`{"id":"","key":%s}`, text):                    "the id of a key has from 1",
		`{"id":"k","alg":"x"}`:                                     `unknown key "alg"`,
		`{"id":"k","id":"l"}`:                                      "given twice",
	} {
		f, problems := c.config.ReadConsumers([]byte(`{"name":"b","signatures":[` + wrong + `]}`))
		if f != nil || !strings.Contains(fmt.Sprint(problems), want) || strings.Contains(fmt.Sprint(problems), "0123456789") {
			t.Errorf("%s: %v", wrong, problems)
		}
	}
}
