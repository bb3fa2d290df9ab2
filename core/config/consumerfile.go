package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

// ConsumersFile holds consumers that may change while the configuration is in force: one JSON object a line, with the keys of
// `consumers` and `name`. Empty lines are skipped.
type ConsumersFile struct {
	Path      string // "": none
	Consumers []Consumer
	Sum       [sha256.Size]byte // of the text, by which a change is seen
}

const (
	maxConsumerFile = 1 << 28
	maxConsumerLine = 64 << 10
)

// consumersFile reads the path, and the file.
func (d *decoder) consumersFile(key string, n ast.Node) {
	var path string
	if !d.text(key, n, &path) {
		return
	}
	if path != "" && !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(d.src.name), path)
	}
	d.cfg.ConsumersFile.Path = path
	d.fileAt = d.at(n)
}

// checkConsumersFile reads the file when all consumers of the configuration itself are known.
func (l *loader) checkConsumersFile() {
	f := &l.cfg.ConsumersFile
	if f.Path == "" {
		return
	}
	if l.env.ReadLarge == nil {
		l.problemAt(l.fileAt, "", "cannot read %q", clip(f.Path))
		return
	}
	text, err := l.env.ReadLarge(f.Path)
	if err != nil {
		l.problemAt(l.fileAt, "", "cannot read %q: %s", clip(f.Path), cause(err))
		return
	}
	f.read(text, l.roll, func(p Problem) { l.add(p) })
}

// ReadConsumers reads the text that has taken the place of the file's. What is wrong with it is told, and cfg stays as it is.
func (c *Config) ReadConsumers(text []byte) (*ConsumersFile, Problems) {
	r := newRoll()
	for i := range c.Consumers {
		r.add(&c.Consumers[i])
	}
	f := &ConsumersFile{Path: c.ConsumersFile.Path}
	var all collector
	f.read(text, r, all.add)
	if problems := all.result([]*source{{}}); problems.Refused() {
		return nil, problems
	}
	return f, nil
}

// ReadConsumersFile reads a file of consumers as Load does.
func ReadConsumersFile(path string) ([]byte, error) { return readUpTo(path, maxConsumerFile) }

func (f *ConsumersFile) read(text []byte, r *roll, report func(Problem)) {
	f.Sum = sha256.Sum256(text)
	refuse := func(line, column int, wrong string) {
		report(Problem{Pos: posAt(f.Path, line, column), Message: wrong, elsewhere: true}) // the line may hold a credential
	}
	if len(text) > maxConsumerFile {
		refuse(0, 0, "the file is larger than "+formatSize(maxConsumerFile))
		return
	}
	for line := 1; len(text) > 0; line++ {
		var one []byte
		one, text, _ = bytes.Cut(text, []byte{'\n'})
		if len(bytes.TrimSpace(one)) == 0 {
			continue
		}
		c := Consumer{Pos: posAt(f.Path, line, 1)}
		if column, wrong := c.readLine(one); wrong != "" {
			refuse(line, column, wrong)
		} else if wrong := r.add(&c); wrong != "" {
			refuse(line, 1, wrong)
		} else {
			f.Consumers = append(f.Consumers, c)
		}
	}
}

// readLine reads one JSON object. wrong says what stands at or before the column, "" for nothing.
func (c *Consumer) readLine(text []byte) (column int, wrong string) {
	if len(text) > maxConsumerLine {
		return 1, "the line is longer than " + formatSize(maxConsumerLine)
	}
	if !utf8.Valid(text) {
		return 1, "the line is not UTF-8"
	}
	r := objectReader{json.NewDecoder(bytes.NewReader(text))}
	err := r.object(func(key string) error { return c.readMember(r, key) })
	if err == nil {
		if _, more := r.Token(); more != io.EOF {
			err = errors.New("a line holds one object")
		}
	}
	if err == nil && !isName(c.Name) {
		err = fmt.Errorf("%q cannot name a consumer", clip(c.Name))
	}
	if err != nil {
		return int(r.InputOffset()) + 1, err.Error()
	}
	return 0, ""
}

func (c *Consumer) readMember(r objectReader, key string) error {
	switch key {
	case "name":
		s, err := r.text()
		c.Name = s
		return err
	case "tier":
		s, err := r.text()
		if err != nil {
			return err
		}
		return asError(c.setTier(s))
	case "tenant":
		s, err := r.text()
		if err != nil {
			return err
		}
		return asError(c.setTenant(s))
	case "groups":
		return r.texts(func(s string) string { return addMembership("group", s, &c.Groups) })
	case "roles":
		return r.texts(func(s string) string { return addMembership("role", s, &c.Roles) })
	case "tags":
		return r.texts(func(s string) string { return addMembership("tag", s, &c.Tags) })
	case "keys":
		return r.array(func() error { return c.readKey(r) })
	case "certificates":
		return r.texts(c.addCertificate)
	case "basic":
		return r.object(func(user string) error {
			s, err := r.text()
			if err != nil {
				return err
			}
			return asError(c.addLogin(user, s))
		})
	case "jwt":
		return r.array(func() error {
			var t TokenSubject
			if err := r.object(func(key string) (err error) {
				switch key {
				case "issuer":
					t.Issuer, err = r.text()
				case "subject":
					t.Subject, err = r.text()
				default:
					err = fmt.Errorf("unknown key %q", clip(key))
				}
				return err
			}); err != nil {
				return err
			}
			return asError(c.addSubject(t))
		})
	case "signatures":
		return r.array(func() error { return c.readSigningKey(r) })
	}
	return fmt.Errorf("unknown key %q", clip(key))
}

// readSigningKey reads a public key in PEM. A secret would stand here in the clear: the configuration alone can refer to one.
func (c *Consumer) readSigningKey(r objectReader) error {
	var k SigningKey
	if err := r.object(func(key string) error {
		s, err := r.text()
		switch {
		case err != nil:
			return err
		case key == "id":
			k.ID = s
		case key == "key" && len(s) <= maxPublicKey:
			k.Public = Literal(s)
		case key == "secret":
			return errors.New("a secret is given by reference, under consumers of the configuration")
		default:
			return fmt.Errorf("unknown key %q", clip(key))
		}
		return nil
	}); err != nil {
		return err
	}
	switch _, err := k.Value(); {
	case k.ID == "" || len(k.ID) > maxKeyIDBytes || hasControl(k.ID):
		return fmt.Errorf("the id of a key has from 1 to %d bytes, and no control characters", maxKeyIDBytes)
	case k.Public.Reveal() == "":
		return errors.New("a key for signatures has no \"key\"")
	case err != nil:
		return err
	case len(c.Signatures) == maxCredentials:
		return fmt.Errorf("a consumer has at most %d keys for signatures", maxCredentials)
	}
	c.Signatures = append(c.Signatures, k)
	return nil
}

func asError(wrong string) error {
	if wrong == "" {
		return nil
	}
	return errors.New(wrong)
}

// objectReader reads JSON of a known form, and refuses a key that stands twice.
type objectReader struct{ *json.Decoder }

func (r objectReader) expect(want json.Delim) error {
	t, err := r.Token()
	if err != nil {
		return jsonError(err)
	}
	if t != want {
		return fmt.Errorf("%q was expected here", want.String())
	}
	return nil
}

func (r objectReader) object(member func(key string) error) error {
	if err := r.expect('{'); err != nil {
		return err
	}
	return r.members(member)
}

// members reads an object that has begun.
func (r objectReader) members(member func(key string) error) error {
	var keys []string
	for r.More() {
		t, err := r.Token()
		if err != nil {
			return jsonError(err)
		}
		key := t.(string) // Token lets nothing else be a key
		for _, k := range keys {
			if k == key {
				return fmt.Errorf("%q is given twice", clip(key))
			}
		}
		if keys = append(keys, key); len(keys) > maxCredentials {
			return fmt.Errorf("more than %d keys", maxCredentials)
		}
		if err := member(key); err != nil {
			return err
		}
	}
	return r.expect('}')
}

func (r objectReader) array(item func() error) error {
	if err := r.expect('['); err != nil {
		return err
	}
	for r.More() {
		if err := item(); err != nil {
			return err
		}
	}
	return r.expect(']')
}

func (r objectReader) text() (string, error) {
	t, err := r.Token()
	if err != nil {
		return "", jsonError(err)
	}
	s, ok := t.(string)
	if !ok {
		return "", errors.New("a string was expected here")
	}
	return s, nil
}

func (r objectReader) texts(add func(s string) string) error {
	return r.array(func() error {
		s, err := r.text()
		if err != nil {
			return err
		}
		return asError(add(s))
	})
}

func jsonError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the object does not end")
	}
	return fmt.Errorf("syntax: %w", err)
}

// AllConsumers gives those of the configuration and of its file.
func (c *Config) AllConsumers(yield func(*Consumer) bool) {
	for _, list := range [][]Consumer{c.Consumers, c.ConsumersFile.Consumers} {
		for i := range list {
			if !yield(&list[i]) {
				return
			}
		}
	}
}
