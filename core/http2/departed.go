package http2

// remembered is of how many streams a connection knows, after their end, whether it was us who reset them.
const remembered = 1024

// departed are the streams, of those opened last, that we have reset: the client may not have known yet when it sent more on them.
type departed [remembered / 64]uint64

func (d *departed) bit(id uint32) (*uint64, uint64) {
	i := id / 2 % remembered
	return &d[i/64], 1 << (i % 64)
}

// opened forgets what was known of the streams whose places id takes, and those that it skips.
func (d *departed) opened(last, id uint32) {
	for range min((id-last+1)/2, remembered) {
		word, bit := d.bit(id)
		*word &^= bit
		id -= 2
	}
}

func (d *departed) add(last, id uint32) {
	if id <= last && last-id < 2*remembered {
		word, bit := d.bit(id)
		*word |= bit
	}
}

// remove notes that the client has ended its side, too; false: it was not known.
func (d *departed) remove(last, id uint32) bool {
	if last-id >= 2*remembered {
		return false
	}
	word, bit := d.bit(id)
	was := *word&bit != 0
	*word &^= bit
	return was
}

// has says whether we have reset the stream, or it is too old to tell.
func (d *departed) has(last, id uint32) bool {
	if last-id >= 2*remembered {
		return true
	}
	word, bit := d.bit(id)
	return *word&bit != 0
}
