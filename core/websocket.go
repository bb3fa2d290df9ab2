package core

import (
	"crypto/sha1"
	"encoding/base64"
)

// WebSocket is the protocol that an Upgrade or an extended CONNECT asks for (RFC 6455; RFC 8441).
const WebSocket = "websocket"

// The fields with which a WebSocket is opened over HTTP/1.1. Over HTTP/2 they have no place (RFC 8441, 5).
const (
	WebSocketKeyField    = "Sec-WebSocket-Key"
	WebSocketAcceptField = "Sec-WebSocket-Accept"
)

// WebSocketKey is a fresh key for a handshake that this gateway makes (RFC 6455, 4.1).
func (w *Worker) WebSocketKey() []byte {
	var b [16]byte
	_, _ = w.ids.Read(b[:]) // never fails
	return base64.StdEncoding.AppendEncode(nil, b[:])
}

// WebSocketAccept is what the other side answers to a key (RFC 6455, 4.2.2).
func WebSocketAccept(key []byte) []byte {
	sum := sha1.Sum(append(append([]byte(nil), key...), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	return base64.StdEncoding.AppendEncode(nil, sum[:])
}
