package http1

import "time"

// imfFixdate is the one form in which dates are sent (RFC 9110, 5.6.7).
const imfFixdate = "Mon, 02 Jan 2006 15:04:05 GMT"

// Date is the text of the current time, made once a second. Each loop has its own. The zero value is ready.
type Date struct {
	second int64
	text   [len(imfFixdate)]byte
}

// Append appends the time, in seconds since 1970, in the form of a Date field.
func (d *Date) Append(dst []byte, second int64) []byte {
	if second != d.second || d.text[0] == 0 {
		d.second = second
		time.Unix(second, 0).UTC().AppendFormat(d.text[:0], imfFixdate)
	}
	return append(dst, d.text[:]...)
}
