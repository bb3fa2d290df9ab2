package jwt

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/core"
)

// Keys and tokens that RFCs print with their signatures.
const (
	hmacKey7515 = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
	rsaKey7515  = `{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2j` +
		`Z47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia` +
		`GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`
	ecKey7515   = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	p521Key7515 = `{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",` +
		`"y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}`
	hmacKey7520 = "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"
	rsaKey7520  = `{"kty":"RSA","kid":"bilbo.baggins@hobbiton.example","use":"sig","n":"n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCp` +
		`MaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_` +
		`vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw","e":"AQAB"}`
	p521Key7520 = `{"kty":"EC","kid":"bilbo.baggins@hobbiton.example","use":"sig","crv":"P-521","x":"AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",` +
		`"y":"AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1"}`
	edKey8037 = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`

	claims7515  = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	payload7520 = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBk" +
		"b24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4"
)

// vector is what an RFC prints.
type vector struct {
	where, alg string
	key        string // a JWK, or a secret in base64url
	token      string
	claims     bool // what is signed is claims that end at 1300819380
}

func vectors() []vector {
	return []vector{
		{"RFC 7515, A.1", "HS256", hmacKey7515, "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + claims7515 + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", true},
		{"RFC 7515, A.2", "RS256", rsaKey7515, "eyJhbGciOiJSUzI1NiJ9." + claims7515 +
			".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARN" +
			"PvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw", true},
		{"RFC 7515, A.3", "ES256", ecKey7515, "eyJhbGciOiJFUzI1NiJ9." + claims7515 +
			".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q", true},
		{"RFC 7515, A.4", "ES512", p521Key7515, "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA" +
			".AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn", false},
		{"RFC 7520, 4.1", "RS256", rsaKey7520, "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9." + payload7520 +
			".MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCr" +
			"UCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg", false},
		{"RFC 7520, 4.2", "PS384", rsaKey7520, "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9." + payload7520 +
			".cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442Z" +
			"dNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw", false},
		{"RFC 7520, 4.3", "ES512", p521Key7520, "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9." + payload7520 +
			".AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2", false},
		{"RFC 7520, 4.4", "HS256", hmacKey7520, "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9." + payload7520 +
			".s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0", false},
		{"RFC 8037, A.4", "EdDSA", edKey8037, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc" +
			".hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg", false},
	}
}

func (v *vector) keys(t *testing.T) *KeySet {
	t.Helper()
	if v.key[0] == '{' {
		set, err := ParseSet([]byte(`{"keys":[` + v.key + `]}`))
		if err != nil {
			t.Fatalf("%s: %v", v.where, err)
		}
		return set
	}
	secret, ok := decode(v.key)
	set, err := Secret(secret)
	if !ok || err != nil {
		t.Fatalf("%s: %v", v.where, err)
	}
	return set
}

// unread takes a token apart whose payload is no claims, as read does up to those.
func unread(t *testing.T, text string) *token {
	t.Helper()
	parts := strings.Split(text, ".")
	h, ok := readHeader(parts[0])
	signature, also := decode(parts[2])
	if !ok || !also {
		t.Fatalf("%s cannot be read", text)
	}
	return &token{header: h, signed: parts[0] + "." + parts[1], signature: signature}
}

// TestVectors: what RFCs print as signed is found right, and with one bit of it changed it is not. Claims go the policy's whole way, under a
// clock at which they count, and under ours are over.
func TestVectors(t *testing.T) {
	d, err := core.NewDirectory(nil)
	if err != nil {
		t.Fatal(err)
	}
	const end = 1300819380
	for _, v := range vectors() {
		set := v.keys(t)
		p := New(Spec{}, Fixed{set}, core.NewConsumers(d), 1)
		right := unread(t, v.token)
		if right.alg != v.alg {
			t.Fatalf("%s is %s", v.where, right.alg)
		}
		if err := p.signed(right, "", set); err != nil {
			t.Errorf("%s: %v", v.where, err)
		}
		for i := range right.signature {
			right.signature[i] ^= 1 << (i % 8)
			if err := p.signed(right, "", set); err != errSignature {
				t.Errorf("%s with a change of byte %d of the signature: %v", v.where, i, err)
			}
			right.signature[i] ^= 1 << (i % 8)
		}
		right.signed = right.signed[:len(right.signed)-1] + "_"
		if err := p.signed(right, "", set); err != errSignature {
			t.Errorf("%s with a change of the payload: %v", v.where, err)
		}
		for at, want := range map[int64]*core.Error{end - 1: nil, end: core.ErrTokenExpired, time.Now().Unix(): core.ErrTokenExpired} {
			if !v.claims {
				want = core.ErrTokenMalformed
			}
			if _, _, err := p.verify(v.token, set, d, time.Unix(at, 0)); err != want {
				t.Errorf("%s at %d: %v, want %v", v.where, at, err, want)
			}
		}
	}
}
