package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// magic is what a state begins with; the number is the version of the framing, each part has one of its own.
	magic = "sluice-state-1\n"
	// maxStateBytes bounds a state: the counters of 10,000 routes take some 10 MB.
	maxStateBytes = 1 << 30
	maxParts      = 256
	maxPartName   = 255
	// partHeadBytes are, after a part's name: version, length and CRC-32C of name, version and body.
	partHeadBytes = 2 + 4 + 4
)

// Part is a piece of state that moves: what it is, in which version of its form, and the bytes.
type Part struct {
	Name    string
	Version uint16
	Body    []byte
}

func (p *Part) sum() uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, []byte(p.Name))
	sum = crc32.Update(sum, table, binary.BigEndian.AppendUint16(nil, p.Version))
	return crc32.Update(sum, table, p.Body)
}

// Encode writes parts so that Decode reads them.
func Encode(parts []Part) ([]byte, error) {
	if len(parts) > maxParts {
		return nil, fmt.Errorf("cannot encode %d parts of state, want at most %d", len(parts), maxParts)
	}
	b := []byte(magic)
	for i := range parts {
		p := &parts[i]
		if p.Name == "" || len(p.Name) > maxPartName || len(p.Body) > maxStateBytes-len(b)-1-maxPartName-partHeadBytes {
			return nil, fmt.Errorf("cannot encode part %q of the state: %d bytes", p.Name, len(p.Body))
		}
		b = append(append(b, byte(len(p.Name))), p.Name...)
		b = binary.BigEndian.AppendUint16(b, p.Version)
		b = binary.BigEndian.AppendUint32(b, uint32(len(p.Body)))
		b = binary.BigEndian.AppendUint32(b, p.sum())
		b = append(b, p.Body...)
	}
	return b, nil
}

// Decode reads parts, whose bodies are slices of b. With an error it gives those that are whole.
func Decode(b []byte) (parts []Part, err error) {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return nil, errors.New("cannot read state: it is not in a form of this version")
	}
	var damaged []error
	for b = b[len(magic):]; len(b) > 0; {
		if len(parts)+len(damaged) >= maxParts {
			return parts, errors.Join(append(damaged, fmt.Errorf("cannot read state: more than %d parts", maxParts))...)
		}
		name := int(b[0])
		if name == 0 || len(b) < 1+name+partHeadBytes {
			return parts, errors.Join(append(damaged, errors.New("cannot read state: it breaks off in a name"))...)
		}
		p := Part{Name: string(b[1 : 1+name])}
		b = b[1+name:]
		p.Version = binary.BigEndian.Uint16(b)
		size, sum := int64(binary.BigEndian.Uint32(b[2:])), binary.BigEndian.Uint32(b[6:])
		if b = b[partHeadBytes:]; size > int64(len(b)) {
			return parts, errors.Join(append(damaged, fmt.Errorf("cannot read state: it breaks off in part %q", p.Name))...)
		}
		p.Body, b = b[:size:size], b[size:]
		if p.sum() != sum {
			damaged = append(damaged, fmt.Errorf("cannot read part %q of the state: its sum is wrong", p.Name))
			continue
		}
		parts = append(parts, p)
	}
	return parts, errors.Join(damaged...)
}

// store writes parts to a file in memory. What is in it is as secret as its parts: it has no name, and is sealed.
func store(parts []Part) (*os.File, error) {
	b, err := Encode(parts)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("sluice-state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("cannot make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "state")
	if _, err = f.Write(b); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot write the file in memory: %w", err)
	}
	return f, nil
}

// load reads such a file.
func load(f *os.File) ([]Part, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read state: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > maxStateBytes {
		return nil, fmt.Errorf("cannot read state: it is no file, or has %d bytes, want at most %d", st.Size(), int64(maxStateBytes))
	}
	b := make([]byte, st.Size())
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, st.Size()), b); err != nil {
		return nil, fmt.Errorf("cannot read state: %w", err)
	}
	return Decode(b)
}
