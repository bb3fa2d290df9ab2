package compile

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/hmac"
)

// nonces are those of signatures that were right, of one policy in this process, until the signature could not be used any more. They
// outlive configurations. Any goroutine may use them.
type nonces struct {
	mu    sync.Mutex
	used  map[[sha256.Size]byte]int64 // until when, on the wall clock
	swept int64                       // size of used after the last sweep
	full  int64                       // until when nothing is looked for that could be forgotten
}

// maxNonces bounds those that are remembered. A signature whose nonce cannot be is refused: it could be used again.
const maxNonces = 1 << 20

// Use says whether a nonce is new, and remembers it until then.
func (n *nonces) Use(key, nonce string, until, now int64) (first, full bool) {
	sum := sha256.Sum256([]byte(key + "\x00" + nonce)) // what a client may send is longer
	n.mu.Lock()
	defer n.mu.Unlock()
	if at, known := n.used[sum]; known && now < at {
		return false, false
	}
	if now < n.full {
		return false, true
	}
	if int64(len(n.used)) >= min(2*n.swept+1024, maxNonces) { // so seldom that it costs each no more than itself
		for k, at := range n.used {
			if at <= now {
				delete(n.used, k)
			}
		}
		n.swept = int64(len(n.used))
		if n.swept >= maxNonces {
			n.full = now + int64(time.Second)
			return false, true
		}
	}
	n.used[sum] = until
	return true, false
}

// signatures makes the policy of kind hmac.
func signatures(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) {
	h := p.HMAC
	if a := h.AWS4; a != nil {
		spec := hmac.AWS4Spec{Region: a.Region, Service: a.Service, Require: h.Require, MaxAge: h.MaxAge, Skew: h.Skew, Presigned: a.Presigned, Body: h.Body,
			Hide: h.Hide, Optional: h.Optional}
		return core.Step{Request: hmac.NewAWS4(spec, c.consumers.directory, max(len(r.workers), 1))}, nil
	}
	n := r.nonces[name]
	if n == nil {
		n = &nonces{used: map[[sha256.Size]byte]int64{}}
	}
	c.nonces[name] = n
	spec := hmac.Spec{Require: h.Require, MaxAge: h.MaxAge, Skew: h.Skew, Nonce: h.Nonce, Tag: h.Tag, Body: h.Body, Hide: h.Hide, Optional: h.Optional}
	return core.Step{Request: hmac.New(spec, c.consumers.directory, n, max(len(r.workers), 1))}, nil
}
