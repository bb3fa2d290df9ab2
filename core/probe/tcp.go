package probe

import (
	"bytes"
	"context"
	"io"
	"net"
)

// TCP sends bytes, if any, and passes when those expected, if any, stand among the first MaxAnswer of the answer.
type TCP struct{ Send, Expect string }

func (t *TCP) ask(ctx context.Context, conn net.Conn) *Failure {
	if t.Send != "" {
		if _, err := io.WriteString(conn, t.Send); err != nil {
			return failed(ctx, "send", err)
		}
	}
	if t.Expect == "" {
		return nil
	}
	seen := make([]byte, 0, 4<<10)
	for len(seen) < MaxAnswer {
		if len(seen) == cap(seen) {
			seen = append(make([]byte, 0, min(2*cap(seen), MaxAnswer)), seen...)
		}
		n, err := conn.Read(seen[len(seen):cap(seen)])
		fresh := seen[max(0, len(seen)-len(t.Expect)+1) : len(seen)+n] // what comes byte by byte is not looked at again and again
		seen = seen[:len(seen)+n]
		if bytes.Contains(fresh, []byte(t.Expect)) {
			return nil
		}
		if err == io.EOF {
			return wrong("the answer has not what is expected")
		}
		if err != nil {
			return failed(ctx, "answer", err)
		}
	}
	return wrong("the first %d bytes of the answer have not what is expected", MaxAnswer)
}
