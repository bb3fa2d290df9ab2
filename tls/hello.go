package tls

import (
	"encoding/binary"
	"errors"
)

// MaxHello is the longest start of a connection in which ServerName looks for a ClientHello, records and all. Those of today have
// up to 2 KiB, most of it a post-quantum key share.
const MaxHello = 16 << 10

// ErrHello says that a connection does not begin with a ClientHello, or with one that is malformed or too long.
var ErrHello = errors.New("malformed ClientHello")

// Of the record layer and the handshake (RFC 8446, 5.1 and 4).
const (
	recordHeaderBytes    = 5
	recordHandshake      = 22
	maxRecordBytes       = 1 << 14
	messageHeaderBytes   = 4
	messageClientHello   = 1
	randomBytes          = 32
	maxSessionIDBytes    = 32
	extensionServerName  = 0
	nameTypeHost         = 0
	alertRecord          = 21
	alertFatal           = 2
	alertDecodeError     = 50
	alertUnrecognized    = 112
	legacyRecordMajor    = 3
	legacyRecordMinorTLS = 3
)

// ServerName finds the name that a client asks for in b, the start of its connection, which it leaves as it is: RFC 6066, section 3, in the
// ClientHello of RFC 8446, section 4.1.2, or RFC 5246, section 7.4.1.2, in as many records as the client likes. While whole is
// false more of it must come, but no more than MaxHello bytes in all. The name is a part of scratch, which must have MaxHello
// bytes; nil if the client sends none. It is of printable ASCII, otherwise as it was sent. Nothing is allocated.
//
// It is strict: what could be read in two ways, such as two server names, is an error, so that whoever ends the connection's TLS
// behind the gateway cannot see another name than the gateway did. With an encrypted ClientHello it is the outer name.
func ServerName(b, scratch []byte) (name []byte, whole bool, err error) {
	message, whole, err := clientHello(b, scratch[:0:MaxHello])
	if err != nil || !whole {
		return nil, false, err
	}
	if name, err = serverNameOf(message); err != nil {
		return nil, false, err
	}
	return name, true, nil
}

// clientHello puts the message together from its records, in to.
func clientHello(b, to []byte) (message []byte, whole bool, err error) {
	for start := b; len(b) > 0; {
		switch {
		case b[0] != recordHandshake || len(b) > 1 && b[1] != legacyRecordMajor:
			return nil, false, ErrHello
		case len(b) < recordHeaderBytes:
			return nil, false, tooLong(start)
		}
		length := int(binary.BigEndian.Uint16(b[3:]))
		if length == 0 || length > maxRecordBytes {
			return nil, false, ErrHello
		}
		part := b[recordHeaderBytes:]
		part = part[:min(length, len(part))]
		if len(part) > cap(to)-len(to) {
			return nil, false, ErrHello
		}
		to = append(to, part...)
		if len(to) > 0 && to[0] != messageClientHello {
			return nil, false, ErrHello
		}
		if len(to) >= messageHeaderBytes {
			size := messageHeaderBytes + int(to[1])<<16 + int(to[2])<<8 + int(to[3])
			switch {
			case size > MaxHello || len(to) > size: // nothing may follow before the server has answered
				return nil, false, ErrHello
			case len(to) == size && len(part) == length:
				return to[messageHeaderBytes:], true, nil
			}
		}
		if len(part) < length {
			return nil, false, tooLong(start)
		}
		b = b[recordHeaderBytes+length:]
		if len(b) == 0 {
			return nil, false, tooLong(start)
		}
	}
	return nil, false, nil
}

// tooLong is the error of a start that is not whole although no more may come.
func tooLong(start []byte) error {
	if len(start) >= MaxHello {
		return ErrHello
	}
	return nil
}

// vector is what is left to read of a message. Its methods give false where it ends too early.
type vector []byte

func (v *vector) skip(n int) bool {
	if len(*v) < n {
		return false
	}
	*v = (*v)[n:]
	return true
}

func (v *vector) number(bytes int) (n int, ok bool) {
	if len(*v) < bytes {
		return 0, false
	}
	for _, b := range (*v)[:bytes] {
		n = n<<8 | int(b)
	}
	return n, v.skip(bytes)
}

// vector gives a part whose length stands before it, in so many bytes.
func (v *vector) vector(lengthBytes int) (part vector, ok bool) {
	n, ok := v.number(lengthBytes)
	if !ok || len(*v) < n {
		return nil, false
	}
	part = (*v)[:n]
	return part, v.skip(n)
}

// serverNameOf reads the body of a ClientHello.
func serverNameOf(hello vector) (name []byte, err error) {
	if !hello.skip(2 + randomBytes) { // legacy_version
		return nil, ErrHello
	}
	session, ok1 := hello.vector(1)
	suites, ok2 := hello.vector(2)
	compression, ok3 := hello.vector(1)
	if !ok1 || !ok2 || !ok3 || len(session) > maxSessionIDBytes || len(suites) == 0 || len(suites)%2 != 0 || len(compression) == 0 {
		return nil, ErrHello
	}
	if len(hello) == 0 {
		return nil, nil // of a client without extensions
	}
	extensions, ok := hello.vector(2)
	if !ok || len(hello) > 0 {
		return nil, ErrHello
	}
	seen := false
	for len(extensions) > 0 {
		kind, ok1 := extensions.number(2)
		data, ok2 := extensions.vector(2)
		if !ok1 || !ok2 {
			return nil, ErrHello
		}
		if kind != extensionServerName {
			continue
		}
		if seen {
			return nil, ErrHello
		}
		seen = true
		if name, err = hostName(data); err != nil {
			return nil, err
		}
	}
	return name, nil
}

// hostName reads the extension: a list of one name, which is a host's, for no other kind was ever defined.
func hostName(data vector) ([]byte, error) {
	list, ok := data.vector(2)
	if !ok || len(data) > 0 {
		return nil, ErrHello
	}
	kind, ok1 := list.number(1)
	name, ok2 := list.vector(2)
	if !ok1 || !ok2 || len(list) > 0 || kind != nameTypeHost || len(name) == 0 || len(name) > maxName || name[len(name)-1] == '.' {
		return nil, ErrHello
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return nil, ErrHello
		}
	}
	return name, nil
}

// Alert is a record that ends a connection before its handshake.
type Alert [7]byte

// UnrecognizedName is for a server name that nobody serves (RFC 6066, 3).
func UnrecognizedName() Alert { return alert(alertUnrecognized) }

// MalformedHello is for what ServerName refuses (RFC 8446, 6.2).
func MalformedHello() Alert { return alert(alertDecodeError) }

func alert(description byte) Alert {
	return Alert{alertRecord, legacyRecordMajor, legacyRecordMinorTLS, 0, 2, alertFatal, description}
}
