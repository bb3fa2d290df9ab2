package compile

import (
	"github.com/sluice-gateway/sluice/core"
	"github.com/sluice-gateway/sluice/core/config"
	"github.com/sluice-gateway/sluice/core/policy/fault"
)

// faults makes the step of a fault, which goes on with the counts of the one of that name.
func faults(r *Registry, c *Compiled, p *config.Policy, name string) (core.Step, error) {
	f := p.Fault
	t := fault.New(fault.Spec{
		DelayShare: f.DelayPercent / 100, Delay: f.Delay, AtOnce: f.AtOnce,
		AbortShare: f.AbortPercent / 100, Status: f.Status, GRPC: f.GRPCStatus, Reset: f.Reset, Header: f.Header,
	}, r.faults[name], len(r.workers))
	c.Faults[name] = t
	return core.Step{Request: t}, nil
}
