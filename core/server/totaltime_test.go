package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestTotalEndsAnswers: the time for the whole request is over for an answer, too, of which there is always more and which its client takes
// slowly, by all combinations of protocols.
func TestTotalEndsAnswers(t *testing.T) {
	endless := func(w http.ResponseWriter, _ *http.Request) {
		for part := make([]byte, 16<<10); ; {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	}
	u := httptest.NewUnstartedServer(http.HandlerFunc(endless))
	u.Config.Protocols = new(http.Protocols)
	u.Config.Protocols.SetHTTP1(true)
	u.Config.Protocols.SetUnencryptedHTTP2(true)
	u.Start()
	t.Cleanup(u.Close)
	for _, protocol := range []string{"h1", "h2c"} {
		g := newGate(t, strings.Replace(h2Config(u.Listener.Addr().String(), "[h1, h2c]"), `"] } }`, `"], protocol: `+protocol+`, timeouts: { total: 300ms } } }`, 1))
		for name, client := range map[string]*http.Client{"h1": newH1Client(t), "h2c": newH2Client(t)} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				res, err := client.Get("http://" + g.addr + "/")
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = res.Body.Close() }()
				part := make([]byte, 8<<10)
				for until := time.Now().Add(patience / 2); err == nil; time.Sleep(time.Millisecond) { // slower than the upstream
					if _, err = res.Body.Read(part); time.Now().After(until) {
						t.Fatal("the answer has not ended")
					}
				}
				if err == io.EOF {
					t.Error("an answer that was cut looks whole")
				}
			})
		}
	}
}
