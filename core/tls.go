package core

// TLS is what the handshake of a client's connection came to. It is of the connection's loop.
type TLS struct {
	Version    uint16 // as in crypto/tls; 0: it is passed through, and only the server name is known
	ServerName string // that the client asked for (SNI), in lower case; "": none
	Resumed    bool   // by a ticket
	ClientCert []byte // the client's verified certificate as Client-Cert wants it (RFC 9440, 2.2); nil: it showed none

	Identity *Identity // of that certificate
	XFCC     []byte    // what it shows as X-Forwarded-Client-Cert has it; nil: it showed none

	// Names say for which hosts a connection may be used; nil: for all.
	Names  Names
	served []byte // the host that was asked for last, if it is one of them
}

// Names are the certificates of a listener.
type Names interface {
	// ServesName says whether a connection for serverName may be used for host as well.
	ServesName(serverName, host string) bool
	// AsksCert says whether a client that asks for serverName, "" for none, is asked for a certificate.
	AsksCert(serverName string) bool
}

// serves says whether a request for this authority may come on the connection (RFC 9110, 7.4 and 15.5.20).
func (t *TLS) serves(authority []byte) bool {
	if t.Names == nil || len(t.served) > 0 && string(authority) == string(t.served) {
		return true
	}
	host := HostOf(authority)
	if !EqualFold(host, t.ServerName) && !t.Names.ServesName(t.ServerName, string(host)) {
		return false
	}
	t.served = append(t.served[:0], authority...)
	return true
}
