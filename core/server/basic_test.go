package server

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// argonHash hashes a password at the least cost that is accepted.
func argonHash(password string) string {
	salt, e := []byte("a salt of 16 byt"), base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=19$m=7168,t=1,p=1$%s$%s", e.EncodeToString(salt), e.EncodeToString(argon2.IDKey([]byte(password), salt, 1, 7168, 1, 32)))
}

func bcryptHash(t testing.TB, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), 10)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func basicHeader(credentials string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}

// TestBasic shows who passes with which password, and that both protocols say the same.
func TestBasic(t *testing.T) {
	long := strings.Repeat("p", 72)
	g := identityGate(t, map[string]string{
		"/basic":    "{ basic: on }",
		"/shown":    "{ basic: { hide: false, realm: \"my place\" } }",
		"/optional": "{ basic: { optional: true } }, { keyauth: { optional: true } }, { access: { groups: [staff] } }",
	}, fmt.Sprintf("  ann: { groups: staff, basic: { ann: %q, \"ann b\": %q } }\n  bob: { groups: staff, basic: { bob: %q }, keys: %q }\n",
		argonHash("pass:word"), argonHash("pässword"), bcryptHash(t, long), keyHash("a-key-that-bob-has")))
	const asks = `Basic realm="sluice", charset="UTF-8"`
	refused := func(name, reason string, headers ...string) identityCase {
		return identityCase{name: name, path: "/basic", headers: headers, status: 401, reason: reason, asks: asks}
	}
	ann := []string{"X-Consumer-Name: ann\r\n"}
	raw := func(s string) string { return "Authorization: Basic " + s }
	judge(t, g.addr, []identityCase{
		{name: "right", path: "/basic", headers: []string{basicHeader("ann:pass:word")}, status: 200, sees: ann, hidden: []string{"authorization"}},
		{name: "cached", path: "/basic", headers: []string{basicHeader("ann:pass:word")}, status: 200, sees: ann, hidden: []string{"authorization"}},
		{name: "another name of hers, UTF-8", path: "/basic", headers: []string{basicHeader("ann b:pässword")}, status: 200, sees: ann},
		{name: "bcrypt", path: "/basic", headers: []string{basicHeader("bob:" + long)}, status: 200, sees: []string{"X-Consumer-Name: bob\r\n"}},
		refused("bcrypt does not look at more", "password_wrong", basicHeader("bob:"+long+"p")),
		refused("wrong", "password_wrong", basicHeader("ann:pass:wordx")),
		refused("wrong again", "password_wrong", basicHeader("ann:pass:wordx")),
		refused("of another", "password_wrong", basicHeader("bob:pass:word")),
		refused("nobody", "password_wrong", basicHeader("eve:pass:word")),
		refused("empty", "password_wrong", basicHeader(":")),
		refused("no colon", "password_malformed", basicHeader("ann")),
		refused("no base64", "password_malformed", raw("!!!!")),
		refused("not canonical", "password_malformed", raw("YW5uOnBhc3M6d29yZB==")), // the last bits before the padding
		refused("without padding", "password_malformed", raw("YW5uOnBhc3M6d29yZA")),
		refused("long", "password_malformed", basicHeader("ann:"+strings.Repeat("x", 2000))),
		refused("none", "password_missing"),
		refused("another scheme", "password_missing", "Authorization: Bearer x"),
		refused("two", "password_ambiguous", basicHeader("ann:pass:word"), basicHeader("bob:x")),
		{name: "shown", path: "/shown", headers: []string{basicHeader("ann:pass:word")}, status: 200, sees: append(ann, "Authorization: Basic ")},
		{name: "realm", path: "/shown", status: 401, reason: "password_missing", asks: `Basic realm="my place"`},
		{name: "password or key: password", path: "/optional", headers: []string{basicHeader("ann:pass:word")}, status: 200, sees: ann},
		{name: "password or key: key", path: "/optional", headers: []string{"X-API-Key: a-key-that-bob-has"}, status: 200, sees: []string{"X-Consumer-Name: bob\r\n"}},
		{name: "password or key: neither", path: "/optional", status: 403, reason: "consumer_required"},
		{name: "password or key: wrong password", path: "/optional", headers: []string{basicHeader("ann:x")}, status: 401, reason: "password_wrong", asks: asks},
	})
}
