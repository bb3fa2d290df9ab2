package config

func (w *dumper) policy(p *Policy) {
	w.identity(p)
	switch {
	case p.GRPCWeb != nil:
		w.line("grpc_web: on")
	case p.CORS != nil:
		w.block("cors:", func() { w.cors(p.CORS) })
	case p.RateLimit != nil:
		w.block("rate_limit:", func() { w.rateLimit(p.RateLimit) })
	case p.Concurrency != nil:
		w.block("concurrency:", func() { w.concurrency(p.Concurrency) })
	case p.Fault != nil:
		w.fault(p.Fault)
	case p.Headers != nil:
		w.block("headers:", func() {
			w.headerChanges("request", &p.Headers.Request)
			w.headerChanges("response", &p.Headers.Response)
		})
	}
}

func (w *dumper) cors(c *CORS) {
	for _, l := range []struct {
		key  string
		list []string
	}{{"origins", c.Origins}, {"methods", c.Methods}, {"headers", c.Headers}, {"expose", c.Expose}} {
		if len(l.list) > 0 {
			w.line("%s: %s", l.key, quoteList(l.list))
		}
	}
	w.line("credentials: %t", c.Credentials)
	w.line("max_age: %s", formatDuration(c.MaxAge))
}

func (w *dumper) headerChanges(key string, c *HeaderChanges) {
	if len(c.Remove)+len(c.Set)+len(c.Add)+len(c.Default) == 0 {
		return
	}
	w.block(key+":", func() {
		if len(c.Remove) > 0 {
			w.line("remove: %s", quoteList(c.Remove))
		}
		for _, l := range []struct {
			key   string
			lines []Header
		}{{"set", c.Set}, {"add", c.Add}, {"default", c.Default}} {
			if len(l.lines) == 0 {
				continue
			}
			w.block(l.key+":", func() {
				for _, h := range l.lines {
					w.line("%s: %s", quote(h.Name), w.secret(h.Value))
				}
			})
		}
	})
}
