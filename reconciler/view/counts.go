package view

import (
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
	"github.com/autonomos/aob/reconciler/web"
)

// Counts counts runs and devices, for metrics.
func (s *Snapshot) Counts() web.Counts {
	c := web.Counts{Runs: map[web.RunCount]int{}, Devices: map[web.DeviceCount]int{}}
	for _, r := range s.World.Runs {
		c.Runs[web.RunCount{Kind: r.Spec.Kind, Phase: r.Phase}]++
	}
	for ring, devices := range s.World.Devices {
		for _, d := range devices {
			phase := d.Report.Phase
			switch {
			case s.At.Sub(d.LastHeard) > s.deadline():
				phase = web.PhaseSilent
			case len(rollout.Anomalies(&d, s.At, s.deadline())) > 0:
				phase = web.PhaseHeld
			}
			c.Devices[web.DeviceCount{Fleet: ring, Phase: phase}]++
		}
	}
	for _, b := range s.World.Stored {
		if len(b.Lost) > 0 {
			c.Lost++
		}
	}
	c.Cost = map[web.CostCount]delivery.Money{}
	for _, spend := range s.Spends() {
		outcome := spend.Phase.String()
		if spend.Phase == delivery.RunStopped {
			outcome = "superseded"
		}
		c.Cost[web.CostCount{Model: spend.Quote.Model, Outcome: outcome}] += spend.Cost
	}
	for _, o := range s.World.Orphans {
		if o.Error != "" {
			c.Orphans++
		}
	}
	return c
}

// Counts counts the last snapshot, for metrics.
func (s *Source) Counts() web.Counts {
	var c web.Counts
	if last := s.Loop.Last(); last != nil {
		c = last.now(s.Fleet.Devices(), s.Now()).Counts()
	}
	c.Queues = s.Loop.Waiting()
	if s.Shelf != nil {
		c.Stored = map[string]web.Amount{}
		for kind, t := range s.Shelf.Totals() {
			c.Stored[string(kind)] = web.Amount{Count: t.Count, Bytes: t.Bytes}
		}
		if since := s.Shelf.Blocked(); !since.IsZero() {
			c.Blocked = s.Now().Sub(since)
		}
	}
	return c
}
