package http2

import (
	"encoding/binary"
	"strconv"
)

// FrameType is the type of a frame (RFC 9113, 6; RFC 9218, 7.1). Unknown ones are ignored (RFC 9113, 4.1).
type FrameType uint8

const (
	FrameData           FrameType = 0x0
	FrameHeaders        FrameType = 0x1
	FramePriority       FrameType = 0x2
	FrameResetStream    FrameType = 0x3
	FrameSettings       FrameType = 0x4
	FramePushPromise    FrameType = 0x5
	FramePing           FrameType = 0x6
	FrameGoAway         FrameType = 0x7
	FrameWindowUpdate   FrameType = 0x8
	FrameContinuation   FrameType = 0x9
	FramePriorityUpdate FrameType = 0x10
)

// Flags are the flags of a frame. The same bit means different things in different frames.
type Flags uint8

const (
	FlagEndStream  Flags = 0x1 // DATA, HEADERS
	FlagAck        Flags = 0x1 // SETTINGS, PING
	FlagEndHeaders Flags = 0x4 // HEADERS, CONTINUATION
	FlagPadded     Flags = 0x8 // DATA, HEADERS
	FlagPriority   Flags = 0x20
)

// Has says whether f is set.
func (s Flags) Has(f Flags) bool { return s&f != 0 }

// FrameHeader is the fixed part of every frame.
type FrameHeader struct {
	Length uint32 // of the payload, below 1 << 24
	Type   FrameType
	Flags  Flags
	Stream uint32 // below 1 << 31
}

const (
	// FrameHeaderBytes is the length of a frame's header.
	FrameHeaderBytes = 9
	// MinMaxFrame is what every peer takes as payload of a frame, and what holds until its settings say more.
	MinMaxFrame = 16 << 10
	// MaxWindow is the largest flow-control window (RFC 9113, 6.9.1).
	MaxWindow = 1<<31 - 1
)

// ParseFrameHeader reads the header of the frame at the start of b, which holds at least nine bytes. The reserved bit is
// ignored.
func ParseFrameHeader(b []byte) FrameHeader {
	_ = b[FrameHeaderBytes-1]
	return FrameHeader{
		Length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		Type:   FrameType(b[3]),
		Flags:  Flags(b[4]),
		Stream: binary.BigEndian.Uint32(b[5:]) & MaxWindow,
	}
}

// AppendFrameHeader appends the header of a frame.
func AppendFrameHeader(dst []byte, h FrameHeader) []byte {
	return append(dst, byte(h.Length>>16), byte(h.Length>>8), byte(h.Length), byte(h.Type), byte(h.Flags),
		byte(h.Stream>>24), byte(h.Stream>>16), byte(h.Stream>>8), byte(h.Stream))
}

// PutFrameHeader writes the header of a frame over the first nine bytes of dst.
func PutFrameHeader(dst []byte, h FrameHeader) {
	_ = dst[FrameHeaderBytes-1]
	dst[0], dst[1], dst[2] = byte(h.Length>>16), byte(h.Length>>8), byte(h.Length)
	dst[3], dst[4] = byte(h.Type), byte(h.Flags)
	binary.BigEndian.PutUint32(dst[5:], h.Stream)
}

// ErrorCode says why a stream or a connection ends (RFC 9113, 7).
type ErrorCode uint32

const (
	CodeNo                 ErrorCode = 0x0
	CodeProtocol           ErrorCode = 0x1
	CodeInternal           ErrorCode = 0x2
	CodeFlowControl        ErrorCode = 0x3
	CodeSettingsTimeout    ErrorCode = 0x4
	CodeStreamClosed       ErrorCode = 0x5
	CodeFrameSize          ErrorCode = 0x6
	CodeRefusedStream      ErrorCode = 0x7
	CodeCancel             ErrorCode = 0x8
	CodeCompression        ErrorCode = 0x9
	CodeConnect            ErrorCode = 0xa
	CodeEnhanceYourCalm    ErrorCode = 0xb
	CodeInadequateSecurity ErrorCode = 0xc
	CodeHTTP11Required     ErrorCode = 0xd
)

var codeNames = [...]string{
	CodeNo: "NO_ERROR", CodeProtocol: "PROTOCOL_ERROR", CodeInternal: "INTERNAL_ERROR", CodeFlowControl: "FLOW_CONTROL_ERROR",
	CodeSettingsTimeout: "SETTINGS_TIMEOUT", CodeStreamClosed: "STREAM_CLOSED", CodeFrameSize: "FRAME_SIZE_ERROR",
	CodeRefusedStream: "REFUSED_STREAM", CodeCancel: "CANCEL", CodeCompression: "COMPRESSION_ERROR", CodeConnect: "CONNECT_ERROR",
	CodeEnhanceYourCalm: "ENHANCE_YOUR_CALM", CodeInadequateSecurity: "INADEQUATE_SECURITY", CodeHTTP11Required: "HTTP_1_1_REQUIRED",
}

func (c ErrorCode) String() string {
	if int64(c) < int64(len(codeNames)) {
		return codeNames[c]
	}
	return "0x" + strconv.FormatUint(uint64(c), 16)
}

// check gives the connection error that the header alone shows: a payload longer than allowed, a length that the type
// does not have, a frame on a stream that must not be on one, or the reverse. maxFrame is what we have announced.
func (h FrameHeader) check(maxFrame uint32) ErrorCode {
	if h.Length > maxFrame {
		return CodeFrameSize
	}
	switch h.Type {
	case FrameData, FrameHeaders, FramePriority, FrameContinuation, FramePushPromise:
		if h.Stream == 0 {
			return CodeProtocol
		}
	case FrameResetStream:
		return h.mustBe(h.Stream != 0, h.Length == 4)
	case FrameSettings:
		return h.mustBe(h.Stream == 0, h.Length%6 == 0 && (h.Length == 0 || !h.Flags.Has(FlagAck)))
	case FramePing:
		return h.mustBe(h.Stream == 0, h.Length == 8)
	case FrameGoAway:
		return h.mustBe(h.Stream == 0, h.Length >= 8)
	case FrameWindowUpdate:
		return h.mustBe(true, h.Length == 4)
	case FramePriorityUpdate:
		return h.mustBe(h.Stream == 0, h.Length >= 4)
	}
	return CodeNo
}

func (h FrameHeader) mustBe(place, size bool) ErrorCode {
	switch {
	case !place:
		return CodeProtocol
	case !size:
		return CodeFrameSize
	}
	return CodeNo
}

// unpad takes the padding off a payload (RFC 9113, 6.1). An error is one of the connection.
func unpad(h FrameHeader, payload []byte) ([]byte, ErrorCode) {
	if !h.Flags.Has(FlagPadded) {
		return payload, CodeNo
	}
	if len(payload) == 0 {
		return nil, CodeFrameSize
	}
	padding := int(payload[0])
	if padding >= len(payload) {
		return nil, CodeProtocol
	}
	return payload[1 : len(payload)-padding], CodeNo
}

// headersPayload takes padding and priority off a HEADERS frame. An error is one of the connection; self says that the
// stream depends on itself, which is an error of the stream (RFC 7540, 5.3.1): the block must be decoded all the same.
func headersPayload(h FrameHeader, payload []byte) (fragment []byte, self bool, code ErrorCode) {
	payload, code = unpad(h, payload)
	if code != CodeNo || !h.Flags.Has(FlagPriority) {
		return payload, false, code
	}
	if len(payload) < 5 {
		return nil, false, CodeFrameSize
	}
	return payload[5:], dependency(payload) == h.Stream, CodeNo
}

// priorityPayload checks a PRIORITY frame, which says nothing that we go by. Both errors are of the stream.
func priorityPayload(h FrameHeader, payload []byte) ErrorCode {
	switch {
	case len(payload) != 5:
		return CodeFrameSize
	case dependency(payload) == h.Stream:
		return CodeProtocol
	}
	return CodeNo
}

func dependency(b []byte) uint32 { return binary.BigEndian.Uint32(b) & MaxWindow }

// parsePriorityUpdate reads a PRIORITY_UPDATE frame, whose length has been checked: the stream that is meant, and the
// value that its Priority field would have (RFC 9218, 7.1).
func parsePriorityUpdate(payload []byte) (stream uint32, value []byte, code ErrorCode) {
	if stream = dependency(payload); stream == 0 {
		return 0, nil, CodeProtocol
	}
	return stream, payload[4:], CodeNo
}

// parseResetStream reads a RST_STREAM frame, whose length has been checked.
func parseResetStream(payload []byte) ErrorCode { return ErrorCode(binary.BigEndian.Uint32(payload)) }

// parseWindowUpdate reads a WINDOW_UPDATE frame, whose length has been checked. 0 is an error (RFC 9113, 6.9).
func parseWindowUpdate(payload []byte) int64 { return int64(dependency(payload)) }

// parseGoAway reads a GOAWAY frame, whose length has been checked.
func parseGoAway(payload []byte) (last uint32, code ErrorCode, debug []byte) {
	return dependency(payload), ErrorCode(binary.BigEndian.Uint32(payload[4:])), payload[8:]
}

// SettingID names a setting (RFC 9113, 6.5.2; RFC 8441, 3; RFC 9218, 2.1).
type SettingID uint16

const (
	SettingHeaderTableSize       SettingID = 0x1
	SettingEnablePush            SettingID = 0x2
	SettingMaxConcurrentStreams  SettingID = 0x3
	SettingInitialWindowSize     SettingID = 0x4
	SettingMaxFrameSize          SettingID = 0x5
	SettingMaxHeaderListSize     SettingID = 0x6
	SettingEnableConnectProtocol SettingID = 0x8
	SettingNoRFC7540Priorities   SettingID = 0x9
)

// Setting is one parameter of a SETTINGS frame.
type Setting struct {
	ID    SettingID
	Value uint32
}

// parseSettings hands each valid parameter to f, in order, unknown ones too. The first error, f's or one of a value that
// is out of its range, ends the connection.
func parseSettings(payload []byte, f func(id SettingID, v uint32) ErrorCode) ErrorCode {
	if len(payload)%6 != 0 {
		return CodeFrameSize
	}
	for ; len(payload) > 0; payload = payload[6:] {
		id, v := SettingID(binary.BigEndian.Uint16(payload)), binary.BigEndian.Uint32(payload[2:])
		code := CodeNo
		switch id {
		case SettingEnablePush, SettingEnableConnectProtocol, SettingNoRFC7540Priorities:
			if v > 1 {
				code = CodeProtocol
			}
		case SettingInitialWindowSize:
			if v > MaxWindow {
				code = CodeFlowControl
			}
		case SettingMaxFrameSize:
			if v < MinMaxFrame || v >= 1<<24 {
				code = CodeProtocol
			}
		}
		if code == CodeNo {
			code = f(id, v)
		}
		if code != CodeNo {
			return code
		}
	}
	return CodeNo
}

// AppendSettings appends a SETTINGS frame.
func AppendSettings(dst []byte, settings ...Setting) []byte {
	dst = AppendFrameHeader(dst, FrameHeader{Length: uint32(6 * len(settings)), Type: FrameSettings})
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint16(dst, uint16(s.ID))
		dst = binary.BigEndian.AppendUint32(dst, s.Value)
	}
	return dst
}

// AppendSettingsAck appends the acknowledgement of a SETTINGS frame.
func AppendSettingsAck(dst []byte) []byte {
	return AppendFrameHeader(dst, FrameHeader{Type: FrameSettings, Flags: FlagAck})
}

// AppendGoAway appends a GOAWAY frame. last is the last stream that was or may yet be worked on.
func AppendGoAway(dst []byte, last uint32, code ErrorCode, debug string) []byte {
	dst = AppendFrameHeader(dst, FrameHeader{Length: uint32(8 + len(debug)), Type: FrameGoAway})
	dst = binary.BigEndian.AppendUint32(dst, last)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, debug...)
}

// AppendResetStream appends a RST_STREAM frame.
func AppendResetStream(dst []byte, stream uint32, code ErrorCode) []byte {
	dst = AppendFrameHeader(dst, FrameHeader{Length: 4, Type: FrameResetStream, Stream: stream})
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

// AppendPing appends a PING frame, or the answer to one.
func AppendPing(dst []byte, ack bool, data [8]byte) []byte {
	h := FrameHeader{Length: 8, Type: FramePing}
	if ack {
		h.Flags = FlagAck
	}
	return append(AppendFrameHeader(dst, h), data[:]...)
}

// AppendWindowUpdate appends a WINDOW_UPDATE frame. increment must be above zero and at most MaxWindow.
func AppendWindowUpdate(dst []byte, stream, increment uint32) []byte {
	dst = AppendFrameHeader(dst, FrameHeader{Length: 4, Type: FrameWindowUpdate, Stream: stream})
	return binary.BigEndian.AppendUint32(dst, increment)
}
