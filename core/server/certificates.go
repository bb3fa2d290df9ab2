package server

import (
	"github.com/sluice-gateway/sluice/core/admin"
	"github.com/sluice-gateway/sluice/core/compile"
	"github.com/sluice-gateway/sluice/core/observe"
	"github.com/sluice-gateway/sluice/tls"
	"github.com/sluice-gateway/sluice/tls/acme"
)

// certificateStatus describes the certificates of all listeners: those of files, then those that are got for it.
func (s *Server) certificateStatus() (out []admin.CertificateStatus) {
	now := s.state.Load()
	if now == nil {
		return nil
	}
	for i := range now.compiled.Config.Listeners {
		e := now.compiled.Encrypted[now.compiled.Config.Listeners[i].Name]
		if e == nil {
			continue
		}
		for _, c := range e.Store.Certificates() {
			one := described(e.Listener, "file", c)
			if one.File == "" {
				one.Source = "reference"
			}
			if c.Staple.State != "" {
				staple := admin.StapleStatus(c.Staple)
				one.Staple = &staple
			}
			out = append(out, one)
		}
		if e.Issuer == nil {
			continue
		}
		for _, c := range e.Issuer.Status() {
			out = append(out, issued(e.Listener, &c))
		}
	}
	return out
}

func described(listener, source string, c tls.Certificate) admin.CertificateStatus {
	return admin.CertificateStatus{Listener: listener, Source: source, File: c.File, Names: c.Names, Issuer: c.Issuer,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Key: c.KeyType, Serial: c.Serial, Fingerprint: c.Fingerprint, Problem: c.Problem}
}

// issued describes a certificate of an authority, or a name that has none yet.
func issued(listener string, c *acme.CertificateStatus) admin.CertificateStatus {
	one := admin.CertificateStatus{Listener: listener, Source: "acme", Names: []string{c.Name}}
	if c.Certificate != nil {
		one = described(listener, "acme", tls.Describe(c.Certificate.Leaf))
		if len(c.Certificate.OCSPStaple) > 0 {
			one.Staple = &admin.StapleStatus{State: tls.StapleGood}
		}
	}
	if c.OnDemand {
		one.Source = "on_demand"
	}
	one.Next, one.Problem = c.NextAttempt, c.LastError
	return one
}

// collectCertificates counts what became of certificates, and says when they end.
func (s *Server) collectCertificates(c *compile.Compiled, sink *observe.Sink) {
	told := map[[3]string]bool{} // a file that is named twice, as by a pattern too, is one: a sink adds up
	for _, c := range s.certificateStatus() {
		labels := []string{"listener", c.Listener, "file", c.File, "fingerprint", c.Fingerprint}
		if at := [3]string{c.Listener, c.File, c.Fingerprint}; c.Source == "file" || c.Source == "reference" {
			if told[at] {
				continue
			}
			told[at] = true
		}
		if !c.NotAfter.IsZero() {
			sink.Gauge("sluice_certificate_expiry_seconds", "When a certificate expires, in Unix time.", float64(c.NotAfter.Unix()), labels...)
		}
		if c.Staple != nil && !c.Staple.Until.IsZero() {
			sink.Gauge("sluice_ocsp_staple_expiry_seconds", "When the OCSP response stapled to a certificate ends, in Unix time.",
				float64(c.Staple.Until.Unix()), labels...)
		}
		if c.File != "" && c.Source != "acme" {
			problem := 0.0
			if c.Problem != "" {
				problem = 1
			}
			sink.Gauge("sluice_certificate_problem", "1: the file of a certificate cannot be read or used as it is now; ctl certs and the log say why. What was read before is in use.",
				problem, "listener", c.Listener, "file", c.File)
		}
		if c.Source == "acme" {
			state, missing := "valid", c.NotAfter.IsZero()
			switch {
			case c.Problem != "":
				state = "failed"
			case missing:
				state = "waiting"
			}
			sink.Gauge("sluice_acme_names", "Names that certificates are got for, by the state of the last attempt.", 1, "listener", c.Listener, "state", state)
		}
	}
	for _, a := range c.Authorities {
		sink.Counter("sluice_acme_certificates_total", "Certificates that an authority issued.", float64(a.Counters.Obtained.Load()), "directory", a.Directory, "renewal", "no")
		sink.Counter("sluice_acme_certificates_total", "Certificates that an authority issued.", float64(a.Counters.Renewed.Load()), "directory", a.Directory, "renewal", "yes")
		sink.Counter("sluice_acme_failures_total", "Attempts to get a certificate that came to nothing.", float64(a.Counters.Failures.Load()), "directory", a.Directory)
	}
	good, revoked, failed := c.Staples.Counts()
	const asked = "Questions to OCSP responders by what came of them."
	sink.Counter("sluice_ocsp_questions_total", asked, float64(good), "result", "good")
	sink.Counter("sluice_ocsp_questions_total", asked, float64(revoked), "result", "revoked")
	sink.Counter("sluice_ocsp_questions_total", asked, float64(failed), "result", "failed")
}
