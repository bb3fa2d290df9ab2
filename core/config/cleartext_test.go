package config

import (
	"fmt"
	"reflect"
	"sort"
	"strings"
	"testing"
)

// secretPlaces is where the file can have secrets: the field of the configuration, and a file with %s in its place.
var secretPlaces = map[string][]string{
	"Cluster.Secret":                        {`cluster: { redis: { addresses: ["127.0.0.1:6379"] }, secret: %s }`},
	"Redis.Password":                        {`cluster: { secret: "env:S", redis: { addresses: ["127.0.0.1:6379"], password: %s } }`},
	"Sentinel.Password":                     {`cluster: { secret: "env:S", redis: { mode: sentinel, addresses: ["127.0.0.1:1"], sentinel: { master: a, password: %s } } }`},
	"Vault.Token":                           {`secrets: { vault: { address: "https://v:8200", token: %s } }`},
	"AppRole.SecretID":                      {`secrets: { vault: { address: "https://v:8200", approle: { role_id: a, secret_id: %s } } }`},
	"ExternalAccount.HMAC":                  {`listeners: { a: { tls: { acme: { external_account: { kid: k, hmac: %s } } } } }`},
	"Tickets.Secret":                        {`listeners: { a: { tls: { tickets: { secret: %s } } } }`},
	"Header.Value":                          {`policies: { a: { headers: { request: { set: { Authorization: %s } } } } }`, `policies: { a: { headers: { request: { add: { X-Api-Key: %s } } } } }`},
	"IntrospectClient.Secret":               {`policies: { a: { introspect: { url: "https://i/", client: { id: a, secret: %s } } } }`, `policies: { a: { oidc: { client: { id: a, secret: %s } } } }`, `upstreams: { a: { endpoints: ["a:1"], authorize: { client_credentials: { url: "https://i/", client: { id: a, secret: %s } } } } }`},
	"IntrospectClient.Key":                  {`policies: { a: { introspect: { url: "https://i/", client: { id: a, auth: private_key_jwt, key: %s } } } }`},
	"JWT.Secret":                            {`policies: { a: { jwt: { audience: a, secret: %s } } }`},
	"SigningKey.Secret":                     {`consumers: { a: { signatures: { id: k, secret: %s } } }`},
	"IdentityToken.Secret":                  {`identity: { token: { issuer: "https://g", secret: %s } }`},
	"OIDCSessions.Keys":                     {`policies: { a: { oidc: { sessions: { store: redis, key: %s } } } }`, `policies: { a: { oidc: { sessions: { store: redis, key: [%s] } } } }`},
	"Certificate.Key":                       {`listeners: { a: { bind: ":1", tls: { certificates: [{ cert: a.pem, key: %s }] } } }`},
	"consumers: hashes, or a reference":     {`consumers: { a: { keys: %s } }`},
	"consumers: hashes, or a reference too": {`consumers: { a: { basic: { ann: %s } } }`},
}

// publicPlaces are fields of the same type that hold what everybody may read, or is sent to everybody.
var publicPlaces = []string{"JWT.Keys", "SigningKey.Public", "Respond.Body", "Refusal.Body"}

// TestClearText: no secret stands in a file without a warning, nor in what is said of it.
func TestClearText(t *testing.T) {
	const secret = "s3cret-in-clear-text-0123456789-abcdef"
	env := Env{LookupEnv: func(name string) (string, bool) { return secret, true }}
	for field, files := range secretPlaces {
		for _, file := range files {
			_, problems := Parse("sluice.yaml", fmt.Appendf(nil, file+"\n", secret), env)
			said := ""
			for _, p := range problems {
				said += p.Message + "\n" + p.Hint + "\n"
			}
			refused := strings.Contains(said, "by reference only") || strings.Contains(said, "stands here in clear text") || strings.Contains(said, "hash")
			if named := field == "Certificate.Key"; !refused && !named || strings.Contains(problems.String(), secret) && !named {
				t.Errorf("%s: %s says %s", field, file, said)
			}
			_, problems = Parse("sluice.yaml", fmt.Appendf(nil, file+"\n", `"env:SECRET"`), env)
			if text := problems.String(); strings.Contains(text, "by reference only") || strings.Contains(text, "in clear text") || strings.Contains(text, secret) || strings.Contains(text, "unknown key") {
				t.Errorf("%s by reference: %s says %s", field, file, text)
			}
		}
	}
}

// TestSecretsAreKnown: whatever is a Secret in the configuration is judged above.
func TestSecretsAreKnown(t *testing.T) {
	found, seen := map[string]bool{}, map[reflect.Type]bool{}
	var look func(of reflect.Type)
	look = func(of reflect.Type) {
		switch of.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			look(of.Elem())
			return
		case reflect.Struct:
		default:
			return
		}
		if seen[of] || of.PkgPath() != reflect.TypeFor[Config]().PkgPath() {
			return
		}
		seen[of] = true
		for f := range of.Fields() {
			inner := f.Type
			for inner.Kind() == reflect.Slice || inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner == reflect.TypeFor[Secret]() {
				found[of.Name()+"."+f.Name] = true
			} else {
				look(f.Type)
			}
		}
	}
	look(reflect.TypeFor[Config]())
	for _, name := range publicPlaces {
		if !found[name] {
			t.Errorf("nothing is %s", name)
		}
		delete(found, name)
	}
	var unknown []string
	for name := range found {
		if secretPlaces[name] == nil {
			unknown = append(unknown, name)
		}
	}
	for name := range secretPlaces {
		if !found[name] && !strings.HasPrefix(name, "consumers: ") {
			t.Errorf("nothing is %s", name)
		}
	}
	sort.Strings(unknown)
	if len(unknown) > 0 {
		t.Errorf("nobody says whether these may stand in clear text: %s", unknown)
	}
}
