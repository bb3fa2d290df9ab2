package hmac

import (
	stdhmac "crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/core"
)

// argument4 is an argument of a query, decoded.
type argument4 struct{ name, value string }

// maxArguments bounds those of a query that are sorted.
const maxArguments = 1024

// key derives the one that signs on a day, in a region, for a service.
func (s *aws4) key(secret []byte) (key [sha256.Size]byte) {
	k := append([]byte("AWS4"), secret...)
	for _, part := range [...]string{s.date, s.region, s.service, aws4End} {
		k = sum(k, part)
	}
	copy(key[:], k)
	return key
}

func sum(key []byte, text string) []byte {
	m := stdhmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// verify compares a signature with that of the request. It runs beside the loop, while nobody else touches x.
func (p *AWS4) verify(x *core.Exchange, s *aws4, key *[sha256.Size]byte) *core.Error {
	text, err := p.canonical(x, s)
	if err != nil {
		return err
	}
	digest := sha256.Sum256([]byte(text))
	scope := s.date + "/" + s.region + "/" + s.service + "/" + aws4End
	if !stdhmac.Equal(sum(key[:], aws4Algorithm+"\n"+s.time+"\n"+scope+"\n"+hex.EncodeToString(digest[:])), s.value) {
		return errWrong
	}
	return nil
}

// canonical is what was signed: method, path, query, fields, their names, and the hash of the body.
func (p *AWS4) canonical(x *core.Exchange, s *aws4) (string, *core.Error) {
	m := &x.Request
	args, ok := arguments(query(m))
	if !ok {
		return "", errMalformed
	}
	uri, ok := canonicalPath(path(m), p.spec.Service == serviceS3)
	if !ok {
		return "", errMalformed
	}
	var b strings.Builder
	b.WriteString(string(m.MethodBytes()) + "\n" + uri + "\n" + canonicalQuery(args, s.presigned) + "\n")
	for _, name := range s.signed {
		value, ok := canonicalField(m, name)
		if !ok {
			return "", errComponents
		}
		b.WriteString(name + ":" + value + "\n")
	}
	b.WriteString("\n" + strings.Join(s.signed, ";") + "\n" + s.payload)
	return b.String(), nil
}

// canonicalPath is a path as it is signed. For most services that is the path in normal form, encoded once more; for s3 it is as it stands,
// whatever of it is written in another way. ok is false where a percent sign begins no triplet.
func canonicalPath(p string, plain bool) (string, bool) {
	var b strings.Builder
	if !plain {
		appendURI(&b, normalPath(p), true)
		return b.String(), true
	}
	for i, segment := range strings.Split(p, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		text, ok := decodeURI(segment)
		if !ok {
			return "", false
		}
		appendURI(&b, text, false) // %2F stays, or two paths would be signed alike
	}
	return b.String(), true
}

// normalPath takes out empty segments and those that are dots (RFC 3986, 5.2.4). What ends with a slash goes on doing so.
func normalPath(p string) string {
	var kept []string
	for segment := range strings.SplitSeq(p, "/") {
		switch segment {
		case "", ".":
		case "..":
			kept = kept[:max(len(kept)-1, 0)]
		default:
			kept = append(kept, segment)
		}
	}
	s := "/" + strings.Join(kept, "/")
	if last := p[strings.LastIndexByte(p, '/')+1:]; len(kept) > 0 && (last == "" || last == "." || last == "..") {
		s += "/"
	}
	return s
}

// arguments are those of a query, with the "?", in their order. ok is false where one may be read in several ways: a plus is a space to some, a semicolon
// the end of an argument, and a percent sign must begin a triplet.
func arguments(query string) (all []argument4, ok bool) {
	query = strings.TrimPrefix(query, "?")
	if strings.ContainsAny(query, "+;") || strings.Count(query, "&") >= maxArguments {
		return nil, false
	}
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		k, v, _ := strings.Cut(part, "=")
		name, ok := decodeURI(k)
		value, also := decodeURI(v)
		if !ok || !also {
			return nil, false
		}
		all = append(all, argument4{name, value})
	}
	return all, true
}

// canonicalQuery sorts the arguments by name and value, as they are encoded. The signature itself is not signed.
func canonicalQuery(args []argument4, presigned bool) string {
	encoded := make([]argument4, 0, len(args))
	for _, a := range args {
		if presigned && a.name == aws4Signature {
			continue
		}
		var k, v strings.Builder
		appendURI(&k, a.name, false)
		appendURI(&v, a.value, false)
		encoded = append(encoded, argument4{k.String(), v.String()})
	}
	slices.SortFunc(encoded, func(a, b argument4) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return strings.Compare(a.value, b.value)
	})
	var b strings.Builder
	for i, a := range encoded {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(a.name + "=" + a.value)
	}
	return b.String()
}

// canonicalField joins the lines of a field, with one space where several stood.
func canonicalField(m *core.Message, name string) (string, bool) {
	all := []string{string(m.Host())}
	if name != "host" {
		all = lines(m, name)
	}
	for i, line := range all {
		line = strings.Trim(line, " \t")
		for strings.Contains(line, "  ") {
			line = strings.ReplaceAll(line, "  ", " ")
		}
		all[i] = line
	}
	return strings.Join(all, ","), len(all) > 0
}

// decodeURI reads percent signs. ok is false where one begins no triplet.
func decodeURI(s string) (string, bool) {
	if strings.IndexByte(s, '%') < 0 {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		c, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return "", false
		}
		b = append(b, c[0])
		i += 2
	}
	return string(b), true
}

// appendURI encodes all but what RFC 3986, 2.3 calls unreserved, and slashes if they stay.
func appendURI(b *strings.Builder, s string, slashes bool) {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~', c == '/' && slashes:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
}
