package tuning

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of ethtool that are asked (linux/ethtool.h).
const (
	getRing = 0x10 // ETHTOOL_GRINGPARAM
	getTSO  = 0x1e // ETHTOOL_GTSO
	getGRO  = 0x2b // ETHTOOL_GGRO
)

// ringParameters is struct ethtool_ringparam.
type ringParameters struct {
	command                                uint32
	rxMost, rxMiniMost, rxJumboMost, txMax uint32
	rx, rxMini, rxJumbo, tx                uint32
}

// toggle is struct ethtool_value.
type toggle struct{ command, on uint32 }

// request is struct ifreq with a pointer.
type request struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

// ReadDevice asks the driver of a network device of this host. A question that it does not know is answered by none and off.
func ReadDevice(name string) (d Device, err error) {
	if len(name) >= unix.IFNAMSIZ {
		return d, fmt.Errorf("cannot ask device %q: the name is too long", name)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return d, fmt.Errorf("cannot ask device %q: %w", name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	ask := func(data unsafe.Pointer) error {
		r := request{data: data}
		copy(r.name[:], name)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); e != 0 {
			return fmt.Errorf("cannot ask device %q: %w", name, e)
		}
		return nil
	}
	ring := ringParameters{command: getRing}
	if ask(unsafe.Pointer(&ring)) == nil {
		d.RxRing, d.RxRingMost = int(ring.rx), int(ring.rxMost)
	}
	gro, tso := toggle{command: getGRO}, toggle{command: getTSO}
	if err := ask(unsafe.Pointer(&gro)); err != nil {
		return d, err
	}
	if err := ask(unsafe.Pointer(&tso)); err != nil {
		return d, err
	}
	d.GRO, d.TSO = gro.on != 0, tso.on != 0
	return d, nil
}
