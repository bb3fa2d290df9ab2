package upstream

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/core"
)

// heads are the names of the fields of answers, as who looks at an exchange last finds them.
type heads struct{ names []string }

func (h *heads) OnEnd(x *core.Exchange) {
	var all []string
	x.Response.All(func(_ core.FieldID, name, _ []byte) bool {
		all = append(all, string(name))
		return true
	})
	h.names = append(h.names, string(x.Request.Path)+": "+strings.Join(all, " "))
}

// The head of a long answer is what it was when the answer has ended, whatever others have done meanwhile in the buffer that it stood in.
func TestHeadOutlivesItsBuffer(t *testing.T) {
	let := make(chan struct{})
	release := sync.OnceFunc(func() { close(let) })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["X-A"], w.Header()["Date"], w.Header()["Content-Type"] = []string{"1"}, nil, nil
		if r.URL.Path == "/long" {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "12345")
			_ = http.NewResponseController(w).Flush()
			<-let
			_, _ = io.WriteString(w, "67890")
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(release)
	h := newHost(t, 1, defaults(), memberOf(s.Listener, 1))
	seen := &heads{}
	h.on(0, func() { h.route.Chain = core.Chain{{Name: "heads", End: seen}} })
	long, other := h.dial(0), h.dial(0)
	long.get("/long")
	answer, err := http.ReadResponse(long.reader, nil)
	if err == nil {
		_, err = io.ReadFull(answer.Body, make([]byte, 5))
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		other.get("/another-client-with-" + strings.Repeat("x", 200))
		other.answer(200)
	}
	release()
	if _, err = io.ReadAll(answer.Body); err != nil {
		t.Error(err)
	}
	h.eventually("its end", func() (over bool) {
		h.on(0, func() { over = len(seen.names) == 4 })
		return over
	})
	h.on(0, func() {
		if got, want := seen.names[len(seen.names)-1], "/long: Content-Length X-A"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
