package http1

import "github.com/sluice-gateway/sluice/core"

// A fault is what is wrong with a head or with chunked framing. The same fault is the client's in a request and the
// upstream's in a response, so that each has two errors.
type fault uint8

const (
	faultNone fault = iota
	faultMore       // nothing wrong so far: bytes are missing
	faultLineTooLong
	faultHeadTooLarge
	faultTooManyFields
	faultVersion
	faultUnknownCoding
	faultRequestLine
	faultStatusLine
	faultTarget
	faultFragment
	faultTargetForm
	faultAuthority
	faultBareLF
	faultBareCR
	faultFold
	faultSpaceBeforeColon
	faultName
	faultValue
	faultLookAlike
	faultLength
	faultLengths
	faultLengthAndCoding
	faultCoding
	faultCodings
	faultCodingVersion
	faultNoHost
	faultHosts
	faultHost
	faultHostDisagrees
	faultOptions
	faultConnectBody
	faultNoContent
	faultSwitching
	faultChunkSize
	faultChunkExtension
	faultChunkExtensions
	faultChunkEnd
	faultTrailer
	faultTrailerForbidden
	faultTrailerTooLarge
	faultCount
)

// faultDetails are for the log only.
var faultDetails = [faultCount]string{
	faultLineTooLong:      "request line too long",
	faultHeadTooLarge:     "head too large",
	faultTooManyFields:    "too many fields",
	faultVersion:          "unsupported version",
	faultUnknownCoding:    "unknown transfer coding",
	faultRequestLine:      "malformed request line",
	faultStatusLine:       "malformed status line",
	faultTarget:           "invalid byte in the target",
	faultFragment:         "fragment in the target",
	faultTargetForm:       "form of the target does not suit the method",
	faultAuthority:        "invalid authority in the target",
	faultBareLF:           "bare LF in the head",
	faultBareCR:           "bare CR in the head",
	faultFold:             "folded line or white space at the start of a line",
	faultSpaceBeforeColon: "white space before a colon",
	faultName:             "invalid field name",
	faultValue:            "control byte in a field value",
	faultLookAlike:        "look-alike of a framing field",
	faultLength:           "invalid Content-Length",
	faultLengths:          "several Content-Length",
	faultLengthAndCoding:  "Content-Length with Transfer-Encoding",
	faultCoding:           "malformed Transfer-Encoding",
	faultCodings:          "several Transfer-Encoding",
	faultCodingVersion:    "Transfer-Encoding in HTTP/1.0",
	faultNoHost:           "no Host",
	faultHosts:            "several Host",
	faultHost:             "invalid Host",
	faultHostDisagrees:    "Host disagrees with the target",
	faultOptions:          "too many connection options",
	faultConnectBody:      "CONNECT with a body",
	faultNoContent:        "body announced in a response that has none",
	faultSwitching:        "101 without Upgrade",
	faultChunkSize:        "invalid chunk size",
	faultChunkExtension:   "malformed chunk extension",
	faultChunkExtensions:  "chunk extensions too long",
	faultChunkEnd:         "chunk data not followed by CRLF",
	faultTrailer:          "malformed trailer",
	faultTrailerForbidden: "framing field in the trailer",
	faultTrailerTooLarge:  "trailer too large",
}

var requestErrors = func() (t [faultCount]*core.Error) {
	for f := range t {
		t[f] = &core.Error{Status: 400, Reason: "bad_request", Detail: faultDetails[f], Close: true}
	}
	set := func(f fault, status int, reason string) { t[f].Status, t[f].Reason = status, reason }
	set(faultLineTooLong, 414, "uri_too_long")
	set(faultHeadTooLarge, 431, "headers_too_large")
	set(faultTooManyFields, 431, "headers_too_large")
	set(faultTrailerTooLarge, 431, "headers_too_large")
	set(faultUnknownCoding, 501, "not_implemented")
	set(faultVersion, 505, "http_version")
	return t
}()

var responseErrors = func() (t [faultCount]*core.Error) {
	for f := range t {
		t[f] = &core.Error{Status: 502, Reason: "bad_response", Detail: faultDetails[f], Side: core.SideUpstream, Retry: core.RetryMalformed}
	}
	return t
}()
