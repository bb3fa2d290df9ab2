package route

import "github.com/sluice-gateway/sluice/core"

// Publish is a core.Action that gives a document of the gateway's own, as it is now. Immutable.
type Publish struct {
	contentType string
	current     func() (text, cacheControl string)
}

// NewPublish gives an action for what current gives. That is called on loops: it must neither wait nor allocate.
func NewPublish(contentType string, current func() (text, cacheControl string)) *Publish {
	return &Publish{contentType, current}
}

// Answer implements core.Action.
func (p *Publish) Answer(x *core.Exchange) {
	text, cacheControl := p.current()
	x.Answer(200, p.contentType, text)
	line := x.Response.Begin(core.FieldCacheControl.String())
	line.String(cacheControl)
	line.End(core.FieldCacheControl)
}
