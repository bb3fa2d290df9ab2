package http2

import "github.com/sluice-gateway/sluice/core"

// ConnError is what ends a connection. Errors are made once, at start.
type ConnError struct {
	Code   ErrorCode
	Detail string
}

func (e *ConnError) Error() string { return e.Code.String() + ": " + e.Detail }

// What a field block can end a connection with. After these the table is not in step with the peer's.
var (
	errInteger    = &ConnError{CodeCompression, "malformed integer in a field block"}
	errString     = &ConnError{CodeCompression, "malformed string in a field block"}
	errIndex      = &ConnError{CodeCompression, "index of no field"}
	errTableSize  = &ConnError{CodeCompression, "table size above the limit"}
	errLateResize = &ConnError{CodeCompression, "table size changed within a field block"}
	errBomb       = &ConnError{CodeEnhanceYourCalm, "field block is far too large"}
)

// A fault is what is wrong with a field section. It concerns its stream only: the table is in step all the same. The same
// fault is the client's in a request and the upstream's in a response.
type fault uint8

const (
	faultNone fault = iota
	faultTargetTooLong
	faultTooLarge
	faultTooMany
	faultName
	faultUpper
	faultBlank
	faultValue
	faultAlike
	faultConnection
	faultTE
	faultPseudo
	faultPseudoLate
	faultPseudoTwice
	faultPseudoMissing
	faultMethod
	faultScheme
	faultAuthority
	faultTarget
	faultFragment
	faultTargetForm
	faultStatus
	faultProtocolName
	faultProtocol
	faultProtocolPlace
	faultConnect
	faultConnectBody
	faultNoHost
	faultHosts
	faultHost
	faultHostDisagrees
	faultLength
	faultLengths
	faultNoContent
	faultSwitching
	faultTrailer
	faultTrailerPseudo
	faultCount
)

// faultDetails are for the log only.
var faultDetails = [faultCount]string{
	faultTargetTooLong: "path too long",
	faultTooLarge:      "head too large",
	faultTooMany:       "too many fields",
	faultName:          "invalid field name",
	faultUpper:         "upper-case field name",
	faultBlank:         "white space around a field value",
	faultValue:         "control byte in a field value",
	faultAlike:         "look-alike of a framing field",
	faultConnection:    "field of an HTTP/1.1 connection",
	faultTE:            "TE other than trailers",
	faultPseudo:        "unknown or unsuitable pseudo-field",
	faultPseudoLate:    "pseudo-field after a field",
	faultPseudoTwice:   "several pseudo-fields of one name",
	faultPseudoMissing: "pseudo-field missing",
	faultMethod:        "invalid method",
	faultScheme:        "scheme is neither http nor https",
	faultAuthority:     "invalid authority",
	faultTarget:        "invalid byte in the path",
	faultFragment:      "fragment in the path",
	faultTargetForm:    "form of the path does not suit the method",
	faultStatus:        "malformed status",
	faultProtocolName:  "malformed protocol",
	faultProtocol:      "protocol that may not be tunnelled",
	faultProtocolPlace: "protocol without CONNECT",
	faultConnect:       "CONNECT needs a host and a port, and nothing else",
	faultConnectBody:   "CONNECT with a body",
	faultNoHost:        "no authority",
	faultHosts:         "several Host",
	faultHost:          "invalid Host",
	faultHostDisagrees: "Host disagrees with the authority",
	faultLength:        "invalid Content-Length",
	faultLengths:       "several Content-Length",
	faultNoContent:     "body announced in a response that has none",
	faultSwitching:     "101 in HTTP/2",
	faultTrailer:       "field that must not be in a trailer",
	faultTrailerPseudo: "pseudo-field in a trailer",
}

// kindFaults are the faults of kinds that are wrong in themselves.
var kindFaults = [kindCount]fault{
	kindFramingAlike: faultAlike,
	kindConnection:   faultConnection,
	kindPseudo:       faultPseudo,
	kindUpper:        faultUpper,
	kindName:         faultName,
}

var requestErrors = func() (t [faultCount]*core.Error) {
	for f := range t {
		t[f] = &core.Error{Status: 400, Reason: "bad_request", Detail: faultDetails[f]}
	}
	set := func(f fault, status int, reason string) { t[f].Status, t[f].Reason = status, reason }
	set(faultTargetTooLong, 414, "uri_too_long")
	set(faultTooLarge, 431, "headers_too_large")
	set(faultTooMany, 431, "headers_too_large")
	set(faultProtocol, 501, "not_implemented")
	return t
}()

var responseErrors = func() (t [faultCount]*core.Error) {
	for f := range t {
		t[f] = &core.Error{Status: 502, Reason: "bad_response", Detail: faultDetails[f], Side: core.SideUpstream, Retry: core.RetryMalformed}
	}
	return t
}()
