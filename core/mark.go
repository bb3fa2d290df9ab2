package core

// Mark is what an exchange was like before policies were asked of which all must let it pass: who has proved who he is, and the request that
// would be forwarded. It is good until the next one is set. That a query is private, and where a client is, stays: both are so whoever passes.
type Mark struct {
	consumer *Consumer
	claims   *ClaimTexts
	query    []byte
	fields   int
	arena    int
}

// Mark sets the mark. It allocates nothing.
func (x *Exchange) Mark() Mark {
	h := &x.Request.Header
	for i := range h.fields {
		h.fields[i].gone = h.fields[i].removed
	}
	return Mark{x.Consumer, x.Claims, x.Request.Query, len(h.fields), len(h.arena)}
}

// Undo makes x what it was at the mark: what was learned since is forgotten, lines of the request that were written are gone, and those that
// were removed are back, credentials among them. What was taken of the request since is not valid any more.
func (x *Exchange) Undo(m Mark) {
	h := &x.Request.Header
	h.fields, h.arena = h.fields[:m.fields], h.arena[:m.arena]
	for i := range h.fields {
		h.fields[i].removed = h.fields[i].gone
	}
	x.Consumer, x.Claims, x.Request.Query = m.consumer, m.claims, m.query
}
