package core

// TLS is what the handshake of a client's connection came to. Immutable.
type TLS struct {
	Version    uint16 // as in crypto/tls
	Cipher     uint16
	ServerName string // that the client asked for (SNI), in lower case; "": none
	Protocol   string // negotiated by ALPN; "": none
	Resumed    bool
}
