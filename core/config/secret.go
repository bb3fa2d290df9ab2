package config

import (
	"encoding/json"
	"fmt"
	"io"
)

// redacted stands for a secret wherever it is printed.
const redacted = "***"

// Secret is a string that may have been given by reference (env:NAME, file:/path, cred:NAME or vault:MOUNT/PATH#KEY). One that was shows itself to nobody
// who does not call Reveal: not to fmt, slog, encoding/json or Dump. Nor does one written in the file itself where only credentials stand; elsewhere,
// as in the body of an answer, that hides nothing. It is immutable.
type Secret struct {
	value     string
	reference bool
	private   bool // a credential, wherever it was read from
}

// Literal returns a Secret for a value that stands in the configuration as it is.
func Literal(value string) Secret { return Secret{value: value} }

// Referenced returns a Secret for a value read from elsewhere.
func Referenced(value string) Secret { return Secret{value: value, reference: true} }

// Reveal returns the value itself. The caller must not log it.
func (s Secret) Reveal() string { return s.value }

// IsReference tells whether the value was read from elsewhere, and so must not be shown.
func (s Secret) IsReference() bool { return s.reference }

// String returns "***" for a value given by reference, or for a credential.
func (s Secret) String() string {
	if s.reference || s.private {
		return redacted
	}
	return s.value
}

// Format keeps every verb, %#v and %d too, from printing what String does not.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'q' || f.Flag('#') {
		fmt.Fprintf(f, "%q", s.String())
		return
	}
	io.WriteString(f, s.String()) //nolint:errcheck // fmt keeps the error of its own writer
}

// MarshalText is what encoders other than JSON's, slog's text handler among them, write.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalJSON writes the string that String returns.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }
