package http1

import "github.com/sluice-gateway/sluice/core"

// hopByHop are the fields that end at the next recipient (RFC 9110, 7.6.1), those of proxy authentication with them:
// the gateway is what they are meant for.
const hopByHop core.FieldSet = 1<<core.FieldConnection | 1<<core.FieldKeepAlive | 1<<core.FieldProxyAuthenticate |
	1<<core.FieldProxyAuthorization | 1<<core.FieldProxyConnection | 1<<core.FieldTE | 1<<core.FieldTransferEncoding

// RemoveHopByHop removes the fields of m that concern only the connection it came on, and those that its Connection
// fields name. Names that the gateway or the upstream relies on, which are all the known ones, cannot be named away.
// Upgrade stays if m.Upgrade is set: whoever forwards it adds "Connection: upgrade", or else removes it. It must be
// called before fields are added, for they could be named too.
func RemoveHopByHop(m *core.Message) {
	if m.Has(core.FieldConnection) {
		removeNamed(m)
	}
	drop := hopByHop
	if !m.Upgrade {
		drop |= 1 << core.FieldUpgrade
	}
	m.RemoveSet(drop)
}

// removeNamed works off at most maxOptions names: the parser has refused more.
func removeNamed(m *core.Message) {
	m.All(func(id core.FieldID, _, value []byte) bool {
		for id == core.FieldConnection && len(value) > 0 {
			var option []byte
			option, value = nextElement(value)
			if len(option) == 0 || core.EqualFold(option, "close") || core.LookupField(option) != core.FieldOther {
				continue
			}
			m.RemoveIf(func(id core.FieldID, name []byte) bool {
				return id == core.FieldOther && core.EqualFoldBytes(name, option)
			})
		}
		return true
	})
}
