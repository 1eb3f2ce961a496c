package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// model explains a model: its versions, who requested them, and where they run.
func (r Report) model(name string) (Chain, error) {
	c := &chain{Report: r, Chain: Chain{Kind: Model, ID: name}}
	i := slices.IndexFunc(r.Plan.Main.Models, func(m plan.MainModel) bool { return m.Model == name })
	versions, accepted := r.versions(name), r.World.Evidence.Accepted[name]
	if i >= 0 {
		c.Facts = facts(r.Plan.Main.Models[i].Fact)
		spec := r.World.Main.Intent.Models.Of(name).Spec()
		c.content(name, spec.Digest(), spec)
	} else {
		c.Facts = facts(fact(code.ChainNotOnMain, values{Model: name, Branch: r.branch(),
			Facts: facts(r.World.MainUnknown())}))
	}
	proposed := false
	for _, p := range r.Plan.Proposals {
		for _, m := range p.Models {
			if m.Model == name {
				proposed = true
				c.add(link("pr", fmt.Sprintf("#%d", p.PR.Number),
					fact(code.ChainAuthored, values{Text: p.PR.Title, By: p.PR.Author}), m.Summary()))
			}
		}
	}
	if i < 0 && len(versions) == 0 && len(accepted) == 0 && !proposed {
		return Chain{}, Unknown{Model, name, "the models are the files under models/; aob status lists them"}
	}
	key := func(a delivery.Acceptance) string { return fmt.Sprint(a.Version, a.Spec, a.Bundle) }
	shown := map[string]bool{}
	var last *delivery.Release
	for _, v := range versions {
		if v.Release == nil {
			l := link("version", "", fact(code.ChainVersionGone, values{}), c.authored(v))
			l.At = v.At
			c.add(l)
			last = nil
			continue
		}
		if last != nil && last.Version == v.Release.Version && last.Bundle == v.Release.Bundle &&
			last.Spec == v.Release.Spec {
			// the pull request's commit and its merge have the same version
			continue
		}
		last = v.Release
		a, ok := r.acceptance(name, *v.Release)
		shown[key(a)] = shown[key(a)] || ok
		c.version(name, *v.Release, c.authored(v), ok)
		c.Links[len(c.Links)-1].At = v.At
		if ok {
			c.withdrawn(name, v.Release.Bundle)
		}
	}
	// If main's history was not read, the acceptances have its versions.
	for _, a := range slices.Backward(accepted) {
		if !shown[key(a)] {
			c.version(name, released(name, a), fact(code.ChainAtCommit, values{Commit: a.Commit}), true)
			c.withdrawn(name, a.Bundle)
		}
	}
	for _, fleet := range r.Plan.Fleets {
		if fleet.Model == name {
			c.add(link("fleet", fleet.Fleet, fleet.Facts...).from(fleet.Target.Bundle))
		}
	}
	return c.Chain, nil
}

// version adds one version of a model.
func (c *chain) version(model string, r delivery.Release, who delivery.Fact, accepted bool) {
	l := link("version", at(model, r.Version), who).from(r.Spec, r.Bundle)
	if !accepted {
		l.Facts = append(l.Facts, fact(code.ChainVersionRefused, values{}))
	}
	s, _ := c.statement(r)
	for _, m := range s.File.Measured {
		l.Details = append(l.Details, figure(m, delivery.MetricMAP).In(code.OfGate, values{Gate: m.Gate}))
		l.Details[len(l.Details)-1].Facts[0].Images = m.Images
	}
	c.add(l)
}

// device explains a device: what it runs, what it was told to run, and how that bundle was made. The name of a fleet
// and a slash may stand before its id.
func (r Report) device(id string) (Chain, error) {
	fleet, name, ofFleet := strings.Cut(id, "/")
	if !ofFleet {
		fleet, name = "", id
	}
	c := &chain{Report: r, Chain: Chain{Kind: Device, ID: id, Facts: facts(fact(code.Plain, values{Text: id}))}}
	shown := map[delivery.Digest]bool{}
	for _, ring := range slices.Sorted(maps.Keys(r.World.Devices)) {
		for _, d := range r.World.Devices[ring] {
			if d.Report.Device != name || ofFleet && d.Report.Ring != fleet {
				continue
			}
			c.add(c.deviceLink(d))
			if doc, ok := r.World.Published[d.Report.Ring]; ok {
				c.desired(d, doc)
			}
			if b := d.Report.Bundle; b != "" && !shown[b] {
				shown[b] = true
				c.bundleOnDevice(b)
			}
		}
	}
	if len(c.Links) == 0 {
		return Chain{}, Unknown{Device, id, "aob status lists the devices that have reported"}
	}
	return c.Chain, nil
}

// deviceLink returns the link of a device with its last report.
func (r Report) deviceLink(d delivery.Device) Link {
	at := d.Report
	l := link("device", at.Device, fact(code.ChainDevice, values{Version: at.Release, Bundle: at.Bundle, Fleet: at.Ring,
		Stage: string(at.Phase), Text: at.Slot})).from(at.Bundle, at.Failed)
	l.At = d.LastHeard
	if r.Silent != nil && r.Silent(d) {
		l.Facts = append(l.Facts, fact(code.ChainDeviceSilent, values{}))
	}
	if at.Failed != "" {
		l.Details = facts(fact(code.ChainBundleFailed, values{Bundle: at.Failed, Text: at.Why}))
	}
	return l
}

// desired adds what a device was told to run.
func (c *chain) desired(d delivery.Device, doc delivery.Desired) {
	target, v := doc.Release, values{Count: int(doc.Version), Model: doc.Model}
	which := code.ChainDesiredWave
	switch {
	case doc.InWave(d.Report.Device) && doc.Share >= 1:
		which = code.ChainDesiredAll
	case doc.InWave(d.Report.Device):
	case doc.Previous != nil:
		which, target = code.ChainDesiredOthers, *doc.Previous
	default:
		c.add(link("desired", doc.Ring, fact(code.ChainDesiredNothing, v)))
		return
	}
	v.Version, v.Bundle = target.Version, target.Bundle
	l := link("desired", doc.Ring, fact(which, v)).from(target.Bundle)
	if d.Report.Desired != doc.Version {
		l.Facts = append(l.Facts, fact(code.ChainDesiredOther, values{Count: int(d.Report.Desired)}))
	}
	c.add(l)
}

// bundleOnDevice adds how a device's bundle was made.
func (c *chain) bundleOnDevice(bundle delivery.Digest) {
	found := false
	for _, model := range c.accepted() {
		for _, a := range slices.Backward(c.World.Evidence.Accepted[model]) {
			variant, has := a.Variant(bundle)
			if !has {
				continue
			}
			if variant == delivery.FP32 {
				variant = ""
			}
			if !found {
				c.Facts = facts(fact(code.ChainDeviceRuns, values{Text: c.ID, Model: model, Version: a.Version,
					Variant: variant}))
			}
			found = true
			c.whole(model, released(model, a))
			c.releasedVariant(a, variant, bundle)
			break
		}
	}
	if !found {
		c.bundle(bundle)
		c.add(link("acceptance", "", fact(code.ChainNeverAccepted, values{Branch: c.branch()})))
	}
}
