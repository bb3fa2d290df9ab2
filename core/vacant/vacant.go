// Package vacant gives addresses of loopback at which nobody listens. Only tests use it.
package vacant

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Address is one at which nobody listens, until the test itself does, with SO_REUSEADDR. A socket that does not listen is bound to it for as
// long as the test lasts: the kernel then gives the port to nobody who asks for any, nor to a connection, which could be one of those that
// are tried with this address itself.
func Address(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("127.0.0.1:", at.(*unix.SockaddrInet4).Port)
}
