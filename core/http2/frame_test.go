package http2

import (
	"bytes"
	"testing"

	xhttp2 "golang.org/x/net/http2"
)

func TestFrameHeader(t *testing.T) {
	for _, h := range []FrameHeader{{}, {1<<24 - 1, 0xff, 0xff, 1<<31 - 1}, {0x010203, FrameHeaders, FlagEndHeaders, 0x01020304}} {
		b := AppendFrameHeader([]byte("x"), h)[1:]
		theirs, err := xhttp2.ReadFrameHeader(bytes.NewReader(b))
		if err != nil || theirs.Length != h.Length || uint8(theirs.Type) != uint8(h.Type) || uint8(theirs.Flags) != uint8(h.Flags) || theirs.StreamID != h.Stream {
			t.Errorf("%v: x/net reads %v", h, theirs)
		}
		put := make([]byte, FrameHeaderBytes)
		PutFrameHeader(put, h)
		b[5] |= 0x80 // the reserved bit
		if got := ParseFrameHeader(b); got != h || ParseFrameHeader(put) != h {
			t.Errorf("%v: read as %v", h, got)
		}
	}
}

// What is written, x/net's framer reads.
func TestFrames(t *testing.T) {
	b := AppendSettings(nil, Setting{SettingMaxConcurrentStreams, 100}, Setting{SettingInitialWindowSize, 1 << 20})
	b = AppendSettingsAck(b)
	b = AppendGoAway(b, 7, CodeEnhanceYourCalm, "why")
	b = AppendResetStream(b, 5, CodeCancel)
	b = AppendPing(b, false, [8]byte{1, 2, 3, 4, 5, 6, 7, 8})
	b = AppendPing(b, true, [8]byte{8})
	b = AppendWindowUpdate(b, 9, 1<<31-1)
	fr := xhttp2.NewFramer(nil, bytes.NewReader(b))
	next := func() xhttp2.Frame {
		t.Helper()
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := next().(*xhttp2.SettingsFrame); f.IsAck() || f.NumSettings() != 2 || f.Setting(0) != (xhttp2.Setting{ID: 3, Val: 100}) || f.Setting(1) != (xhttp2.Setting{ID: 4, Val: 1 << 20}) {
		t.Error(f)
	}
	if f := next().(*xhttp2.SettingsFrame); !f.IsAck() {
		t.Error(f)
	}
	if f := next().(*xhttp2.GoAwayFrame); f.LastStreamID != 7 || f.ErrCode != xhttp2.ErrCodeEnhanceYourCalm || string(f.DebugData()) != "why" {
		t.Error(f)
	}
	if f := next().(*xhttp2.RSTStreamFrame); f.StreamID != 5 || f.ErrCode != xhttp2.ErrCodeCancel {
		t.Error(f)
	}
	if f := next().(*xhttp2.PingFrame); f.IsAck() || f.Data != [8]byte{1, 2, 3, 4, 5, 6, 7, 8} {
		t.Error(f)
	}
	if f := next().(*xhttp2.PingFrame); !f.IsAck() || f.Data != [8]byte{8} {
		t.Error(f)
	}
	if f := next().(*xhttp2.WindowUpdateFrame); f.StreamID != 9 || f.Increment != 1<<31-1 {
		t.Error(f)
	}
	for c := range ErrorCode(14) {
		if c.String() != xhttp2.ErrCode(c).String() {
			t.Errorf("%d: %s", c, c)
		}
	}
	if s := ErrorCode(1 << 31).String(); s != "0x80000000" {
		t.Error(s)
	}
}

func TestFrameCheck(t *testing.T) {
	for _, c := range []struct {
		h    FrameHeader
		want ErrorCode
	}{
		{FrameHeader{16385, FrameData, 0, 1}, CodeFrameSize}, {FrameHeader{16384, FrameData, 0, 1}, CodeNo},
		{FrameHeader{1, FrameData, 0, 0}, CodeProtocol}, {FrameHeader{1, FrameHeaders, 0, 0}, CodeProtocol},
		{FrameHeader{5, FramePriority, 0, 0}, CodeProtocol}, {FrameHeader{4, FramePriority, 0, 1}, CodeNo},
		{FrameHeader{1, FrameContinuation, 0, 0}, CodeProtocol}, {FrameHeader{4, FramePushPromise, 0, 0}, CodeProtocol},
		{FrameHeader{4, FrameResetStream, 0, 0}, CodeProtocol}, {FrameHeader{3, FrameResetStream, 0, 1}, CodeFrameSize}, {FrameHeader{4, FrameResetStream, 0, 1}, CodeNo},
		{FrameHeader{6, FrameSettings, 0, 1}, CodeProtocol}, {FrameHeader{5, FrameSettings, 0, 0}, CodeFrameSize},
		{FrameHeader{6, FrameSettings, FlagAck, 0}, CodeFrameSize}, {FrameHeader{0, FrameSettings, FlagAck, 0}, CodeNo}, {FrameHeader{12, FrameSettings, 0, 0}, CodeNo},
		{FrameHeader{8, FramePing, 0, 1}, CodeProtocol}, {FrameHeader{7, FramePing, 0, 0}, CodeFrameSize}, {FrameHeader{8, FramePing, 0, 0}, CodeNo},
		{FrameHeader{8, FrameGoAway, 0, 1}, CodeProtocol}, {FrameHeader{7, FrameGoAway, 0, 0}, CodeFrameSize}, {FrameHeader{99, FrameGoAway, 0, 0}, CodeNo},
		{FrameHeader{3, FrameWindowUpdate, 0, 1}, CodeFrameSize}, {FrameHeader{4, FrameWindowUpdate, 0, 0}, CodeNo}, {FrameHeader{4, FrameWindowUpdate, 0, 1}, CodeNo},
		{FrameHeader{4, FramePriorityUpdate, 0, 1}, CodeProtocol}, {FrameHeader{3, FramePriorityUpdate, 0, 0}, CodeFrameSize},
		{FrameHeader{3, 0x42, 0xff, 0}, CodeNo},
	} {
		if got := c.h.check(MinMaxFrame); got != c.want {
			t.Errorf("%+v: %v, want %v", c.h, got, c.want)
		}
	}
}

func TestPayloads(t *testing.T) {
	for _, c := range []struct {
		flags Flags
		in    string
		out   string
		self  bool
		code  ErrorCode
	}{
		{0, "\x02abc", "\x02abc", false, CodeNo},
		{FlagPadded, "\x02abc", "a", false, CodeNo},
		{FlagPadded, "\x00", "", false, CodeNo},
		{FlagPadded, "\x03abc", "", false, CodeNo},
		{FlagPadded, "\x04abc", "", false, CodeProtocol},
		{FlagPadded, "", "", false, CodeFrameSize},
		{FlagPriority, "\x80\x00\x00\x03\xffabc", "abc", true, CodeNo},
		{FlagPriority | FlagPadded, "\x01\x80\x00\x00\x05\xffabc", "ab", false, CodeNo},
		{FlagPriority, "\x80\x00\x00\x03", "", false, CodeFrameSize},
		{FlagPriority | FlagPadded, "\x01\x80\x00\x00\x03\xff", "", false, CodeFrameSize},
	} {
		out, self, code := headersPayload(FrameHeader{Type: FrameHeaders, Flags: c.flags, Stream: 3}, []byte(c.in))
		if code != c.code || code == CodeNo && (string(out) != c.out || self != c.self) {
			t.Errorf("%x %q: %q, %v, %v", c.flags, c.in, out, self, code)
		}
	}
	h := FrameHeader{Type: FramePriority, Stream: 3}
	if priorityPayload(h, make([]byte, 4)) != CodeFrameSize || priorityPayload(h, []byte{0x80, 0, 0, 3, 0}) != CodeProtocol || priorityPayload(h, make([]byte, 5)) != CodeNo {
		t.Error("PRIORITY")
	}
	if s, v, code := parsePriorityUpdate([]byte("\x80\x00\x00\x05u=1")); s != 5 || string(v) != "u=1" || code != CodeNo {
		t.Error("PRIORITY_UPDATE")
	}
	if _, _, code := parsePriorityUpdate([]byte("\x80\x00\x00\x00u=1")); code != CodeProtocol {
		t.Error("PRIORITY_UPDATE of the connection")
	}
	if last, code, debug := parseGoAway([]byte("\x80\x00\x00\x05\x00\x00\x00\x0bwhy")); last != 5 || code != CodeEnhanceYourCalm || string(debug) != "why" {
		t.Error("GOAWAY")
	}
	if parseResetStream([]byte{0, 0, 0, 8}) != CodeCancel || parseWindowUpdate([]byte{0x80, 0, 0, 8}) != 8 {
		t.Error("RST_STREAM or WINDOW_UPDATE")
	}
}

func TestParseSettings(t *testing.T) {
	for _, c := range []struct {
		s    Setting
		want ErrorCode
	}{
		{Setting{SettingEnablePush, 1}, CodeNo}, {Setting{SettingEnablePush, 2}, CodeProtocol},
		{Setting{SettingEnableConnectProtocol, 2}, CodeProtocol}, {Setting{SettingNoRFC7540Priorities, 2}, CodeProtocol},
		{Setting{SettingInitialWindowSize, 1<<31 - 1}, CodeNo}, {Setting{SettingInitialWindowSize, 1 << 31}, CodeFlowControl},
		{Setting{SettingMaxFrameSize, 16383}, CodeProtocol}, {Setting{SettingMaxFrameSize, 16384}, CodeNo},
		{Setting{SettingMaxFrameSize, 1<<24 - 1}, CodeNo}, {Setting{SettingMaxFrameSize, 1 << 24}, CodeProtocol},
		{Setting{SettingHeaderTableSize, 1<<32 - 1}, CodeNo}, {Setting{0xf0, 1<<32 - 1}, CodeNo}, {Setting{0xf1, 1}, CodeCancel},
	} {
		b := AppendSettings(nil, Setting{SettingMaxConcurrentStreams, 1}, c.s)[FrameHeaderBytes:]
		var seen []Setting
		code := parseSettings(b, func(id SettingID, v uint32) ErrorCode {
			seen = append(seen, Setting{id, v})
			if id == 0xf1 {
				return CodeCancel
			}
			return CodeNo
		})
		if code != c.want || code == CodeNo && (len(seen) != 2 || seen[1] != c.s) {
			t.Errorf("%v: %v, %v", c.s, code, seen)
		}
	}
	if parseSettings(make([]byte, 5), nil) != CodeFrameSize {
		t.Error("half a setting was accepted")
	}
}
