// Package limits counts what clients take of the gateway and says when it is enough. It knows no HTTP message.
package limits
