package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// reply is one response as it came in: interim responses, head, body with its framing, trailers.
type reply struct {
	head   []byte // of the interim responses too
	body   []byte // as framed
	status int
	fields []string // field lines of the final head
}

// String shows the reply with LF for CR LF; a long body is only described.
func (r *reply) String() string {
	text := strings.ReplaceAll(string(r.head), "\r\n", "\n")
	body := strings.ReplaceAll(describeBody(r.body), "\r\n", "\n")
	if body != "" && !strings.HasSuffix(body, "\n") {
		body += "\n"
	}
	return text + body
}

// closes says whether the head announces that the connection ends.
func (r *reply) field(name string) (string, bool) {
	for _, line := range r.fields {
		n, v, _ := strings.Cut(line, ":")
		if strings.EqualFold(n, name) {
			return strings.TrimSpace(v), true
		}
	}
	return "", false
}

// describeBody returns short bodies as they are and of long ones size and content, in a form that scripts can match.
func describeBody(body []byte) string {
	if len(body) <= 2048 {
		return string(body)
	}
	if rest := bytes.TrimLeft(body, string(body[:1])); len(rest) == 0 {
		return fmt.Sprintf("[%d bytes, all %q]", len(body), body[0])
	}
	return fmt.Sprintf("[%d bytes, sha256 %.4x]", len(body), sha256.Sum256(body))
}

// readReply reads one final response and the interim ones before it. It accepts nothing but what RFC 9112 lets a server
// send: this reader is what proves that the gateway frames its answers well.
func readReply(br *bufio.Reader, method string) (*reply, error) {
	r := &reply{}
	for {
		if err := r.readHead(br); err != nil {
			return r, err
		}
		if r.status >= 200 || r.status == 101 {
			break
		}
	}
	err := r.readBody(br, method)
	return r, err
}

func (r *reply) readHead(br *bufio.Reader) error {
	line, err := r.readLine(br)
	if err != nil {
		return err
	}
	version, rest, _ := strings.Cut(line, " ")
	code, _, spaced := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || !spaced || status < 100 || (version != "HTTP/1.1" && version != "HTTP/1.0") {
		return fmt.Errorf("bad status line %q", line)
	}
	r.status, r.fields = status, nil
	for {
		line, err := r.readLine(br)
		if err != nil {
			return noEOF(err)
		}
		if line == "" {
			return nil
		}
		name, _, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return fmt.Errorf("bad field line %q", line)
		}
		r.fields = append(r.fields, line)
	}
}

func (r *reply) readLine(br *bufio.Reader) (string, error) {
	line, err := br.ReadString('\n')
	r.head = append(r.head, line...)
	if err != nil {
		if err == io.EOF && line != "" {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	if !strings.HasSuffix(line, "\r\n") || strings.Count(line, "\r") != 1 {
		return "", fmt.Errorf("line %q does not end with CR LF", line)
	}
	return line[:len(line)-2], nil
}

func (r *reply) readBody(br *bufio.Reader, method string) error {
	length, sized := r.field("Content-Length")
	coding, coded := r.field("Transfer-Encoding")
	switch {
	case sized && coded:
		return errors.New("answer with Content-Length and Transfer-Encoding")
	case r.status < 200 || r.status == 204:
		if sized || coded {
			return fmt.Errorf("answer %d with Content-Length or Transfer-Encoding", r.status)
		}
		return nil
	case r.status == 304 || method == "HEAD":
		return nil
	case coded:
		if coding != "chunked" {
			return fmt.Errorf("answer with Transfer-Encoding %q", coding)
		}
		return r.readChunks(br)
	case sized:
		n, err := strconv.ParseUint(length, 10, 40)
		if err != nil {
			return fmt.Errorf("answer with Content-Length %q", length)
		}
		return r.readN(br, int(n))
	}
	body, err := io.ReadAll(br)
	r.body = body
	return err
}

func (r *reply) readN(br *bufio.Reader, n int) error {
	start := len(r.body)
	r.body = append(r.body, make([]byte, n)...)
	got, err := io.ReadFull(br, r.body[start:])
	r.body = r.body[:start+got]
	return noEOF(err)
}

func (r *reply) readChunks(br *bufio.Reader) error {
	for {
		line, err := br.ReadString('\n')
		r.body = append(r.body, line...)
		if err != nil {
			return noEOF(err)
		}
		size, err := strconv.ParseUint(strings.TrimSuffix(line, "\r\n"), 16, 32)
		if err != nil {
			return fmt.Errorf("bad chunk size line %q", line)
		}
		if size == 0 {
			break
		}
		if err := r.readN(br, int(size)+2); err != nil {
			return err
		}
		if !bytes.HasSuffix(r.body, []byte("\r\n")) {
			return errors.New("a chunk's data does not end with CR LF")
		}
	}
	for {
		line, err := br.ReadString('\n')
		r.body = append(r.body, line...)
		if err != nil {
			return noEOF(err)
		}
		if line == "\r\n" {
			return nil
		}
		if !strings.HasSuffix(line, "\r\n") {
			return fmt.Errorf("trailer line %q does not end with CR LF", line)
		}
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
