package hmac

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// aws4 is a signature of a request, read but not believed.
type aws4 struct {
	keyID                 string
	time                  string // X-Amz-Date
	at                    int64  // the same, in seconds
	date, region, service string // of the credential's scope
	signed                []string
	value                 []byte // 32
	presigned             bool   // it stands in the query
	life                  int64  // of a presigned one, in seconds
	payload               string // the body's hash in hexadecimal, or UNSIGNED-PAYLOAD; "": it is not told
}

const (
	aws4Algorithm   = "AWS4-HMAC-SHA256"
	aws4Signature   = "X-Amz-Signature"
	aws4Time        = "20060102T150405Z"
	aws4End         = "aws4_request"
	unsignedPayload = "UNSIGNED-PAYLOAD"
	serviceS3       = "s3"
)

// find reads the signature of a request: in Authorization, or, where that is looked at, in the query. It cannot be in both.
func (p *AWS4) find(m *core.Message) (*aws4, *core.Error) {
	all := lines(m, "Authorization")
	named := slices.ContainsFunc(all, func(s string) bool { return scheme([]byte(s)) })
	inQuery := false
	if p.spec.Presigned > 0 {
		_, n := m.Argument(aws4Signature)
		inQuery = n > 0
	}
	switch {
	case !named && !inQuery:
		return nil, errMissing
	case named == inQuery || named && len(all) > 1:
		return nil, errMalformed
	}
	var s *aws4
	hashes := lines(m, "X-Amz-Content-Sha256")
	if named {
		dates := lines(m, "X-Amz-Date")
		if s = readAuthorization(all[0]); s == nil || len(dates) != 1 || len(hashes) > 1 || !s.dated(dates[0]) || !s.told(hashes) {
			return nil, errMalformed
		}
	} else {
		args, ok := arguments(query(m))
		if !ok {
			return nil, errMalformed
		}
		if s = readPresigned(args); s == nil || len(hashes) > 1 || s.payload != "" && len(hashes) > 0 || !s.told(hashes) {
			return nil, errMalformed
		}
	}
	if !p.covers(m, s) {
		return nil, errComponents
	}
	return s, nil
}

// scheme says whether credentials are ours to judge.
func scheme(authorization []byte) bool {
	s, _, _ := strings.Cut(string(authorization), " ")
	return strings.EqualFold(s, aws4Algorithm)
}

// readAuthorization takes the field apart. It has Credential, SignedHeaders and Signature, each once. nil: it has not.
func readAuthorization(text string) *aws4 {
	name, rest, ok := strings.Cut(text, " ")
	if !ok || name != aws4Algorithm || len(text) > maxInput {
		return nil
	}
	s, seen := &aws4{}, map[string]bool{}
	for part := range strings.SplitSeq(rest, ",") {
		k, v, ok := strings.Cut(strings.Trim(part, " "), "=")
		if !ok || seen[k] {
			return nil
		}
		seen[k] = true
		switch k {
		case "Credential":
			ok = s.credential(v)
		case "SignedHeaders":
			ok = s.names(v)
		case "Signature":
			ok = s.signature(v)
		default:
			ok = false
		}
		if !ok {
			return nil
		}
	}
	if len(seen) != 3 {
		return nil
	}
	return s
}

// readPresigned reads what the query says, each once. nil: not all is there, or something is wrong.
func readPresigned(args []argument4) *aws4 {
	s, seen := &aws4{presigned: true}, map[string]bool{}
	for _, a := range args {
		if len(a.name) < len("X-Amz-") || !strings.EqualFold(a.name[:len("X-Amz-")], "X-Amz-") {
			continue
		}
		if seen[strings.ToLower(a.name)] {
			return nil
		}
		seen[strings.ToLower(a.name)] = true
		ok := true
		switch a.name {
		case "X-Amz-Algorithm":
			ok = a.value == aws4Algorithm
		case "X-Amz-Credential":
			ok = len(a.value) <= maxInput && s.credential(a.value)
		case "X-Amz-Date":
			ok = s.dated(a.value)
		case "X-Amz-Expires":
			n, err := strconv.ParseUint(a.value, 10, 31)
			s.life, ok = int64(n), err == nil && n > 0 && strconv.FormatUint(n, 10) == a.value
		case "X-Amz-SignedHeaders":
			ok = len(a.value) <= maxInput && s.names(a.value)
		case aws4Signature:
			ok = s.signature(a.value)
		case "X-Amz-Content-Sha256":
			ok = s.told([]string{a.value})
		}
		if !ok {
			return nil
		}
	}
	if s.keyID == "" || s.time == "" || s.life == 0 || s.signed == nil || s.value == nil || !seen["x-amz-algorithm"] {
		return nil
	}
	return s
}

// credential reads ID/DATE/REGION/SERVICE/aws4_request. The id may have slashes.
func (s *aws4) credential(v string) bool {
	parts := strings.Split(v, "/")
	n := len(parts) - 4
	if n < 1 || parts[n+3] != aws4End {
		return false
	}
	s.keyID, s.date, s.region, s.service = strings.Join(parts[:n], "/"), parts[n], parts[n+1], parts[n+2]
	return s.keyID != "" && len(s.date) == len("20060102") && s.region != "" && s.service != ""
}

// names reads which fields are signed: in lower case, sorted, each once.
func (s *aws4) names(v string) bool {
	s.signed = strings.Split(v, ";")
	for i, name := range s.signed {
		if !core.IsToken([]byte(name)) || strings.ToLower(name) != name || i > 0 && name <= s.signed[i-1] {
			return false
		}
	}
	return len(s.signed) <= maxComponents
}

func (s *aws4) signature(v string) bool {
	value, ok := hash(v)
	s.value = value
	return ok
}

func (s *aws4) dated(v string) bool {
	t, err := time.Parse(aws4Time, v)
	s.time, s.at = v, t.Unix()
	return err == nil && len(v) == len(aws4Time)
}

// told reads what is said of the body. A body in signed pieces is not understood.
func (s *aws4) told(all []string) bool {
	if len(all) == 0 {
		return true
	}
	s.payload = all[0]
	_, ok := hash(s.payload)
	return ok || s.payload == unsignedPayload
}

// hash reads a SHA-256 in hexadecimal, in lower case.
func hash(v string) ([]byte, bool) {
	b, err := hex.DecodeString(v)
	return b, err == nil && len(b) == 32 && strings.ToLower(v) == v
}

// covers says whether all is signed that must be: whatever begins with x-amz- is for whoever judges the signature.
func (p *AWS4) covers(m *core.Message, s *aws4) bool {
	signs := func(name string) bool {
		_, found := slices.BinarySearch(s.signed, name)
		return found
	}
	if !signs("host") || !s.presigned && !signs("x-amz-date") {
		return false
	}
	for _, name := range p.spec.Require {
		if !signs(name) {
			return false
		}
	}
	all := true
	m.All(func(_ core.FieldID, name, _ []byte) bool {
		if len(name) > 6 && core.EqualFold(name[:6], "x-amz-") {
			all = all && signs(strings.ToLower(string(name)))
		}
		return all
	})
	return all
}
