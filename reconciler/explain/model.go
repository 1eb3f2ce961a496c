package explain

import (
	"fmt"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
)

// model explains a model: every version it has had, who asked for it, and where
// it runs.
func (f Facts) model(name string) (Chain, error) {
	c := &chain{Facts: f, Chain: Chain{Kind: Model, ID: name}}
	i := slices.IndexFunc(f.Models, func(m Main) bool { return m.Name == name })
	versions, accepted := f.Versions[name], f.Acceptances[name]
	if i < 0 && len(versions) == 0 && len(accepted) == 0 && !f.proposed(name) {
		return Chain{}, Unknown{Model, name, "the models are the files under models/; aob status lists them"}
	}
	c.Title = fmt.Sprintf("%s: not on %s", name, f.Branch)
	if f.Unread != "" {
		c.Title = fmt.Sprintf("%s: nobody can say how it stands: %s", name, f.Unread)
	}
	if i >= 0 {
		m := f.Models[i]
		c.Title = m.Text
		c.content(name, m.Spec.Digest(), m.Spec)
	}
	for _, p := range f.Proposals {
		for _, m := range p.Models {
			if m.Model == name {
				c.add(Link{What: "pr", ID: fmt.Sprintf("#%d", p.PR.Number), Text: fmt.Sprintf("%s, by %s: %s",
					p.PR.Title, p.PR.Author, m.Text)})
			}
		}
	}
	told := map[delivery.Acceptance]bool{}
	var last *delivery.Release
	for _, v := range versions {
		if v.Release == nil {
			c.add(Link{What: "version", Text: "the release file was removed, or could not be read: " + c.authored(v),
				At: v.At})
			last = nil
			continue
		}
		if last != nil && last.Version == v.Release.Version && last.Bundle == v.Release.Bundle &&
			last.Spec == v.Release.Spec {
			// the pull request's own commit, after its merge, in whatever words an earlier aob wrote the figures
			continue
		}
		last = v.Release
		a, ok := f.acceptance(name, *v.Release)
		told[a] = told[a] || ok
		c.version(name, *v.Release, c.authored(v), ok)
		c.Links[len(c.Links)-1].At = v.At
		if ok {
			c.withdrawn(name, v.Release.Bundle)
		}
	}
	// Where main's history was not read, the acceptances say what there was.
	for i := len(accepted) - 1; i >= 0; i-- {
		if a := accepted[i]; !told[a] {
			r := delivery.Release{Name: name, Version: a.Version, Bundle: a.Bundle, Spec: a.Spec}
			c.version(name, r, "at "+ShortID(a.Commit), true)
			c.withdrawn(name, a.Bundle)
		}
	}
	for _, fleet := range f.Fleets {
		if fleet.Model == name {
			c.add(Link{What: "fleet", ID: fleet.Name, Text: fleet.Text, Inputs: inputs(fleet.Target.Bundle)})
		}
	}
	return c.Chain, nil
}

func (f Facts) proposed(model string) bool {
	for _, p := range f.Proposals {
		for _, m := range p.Models {
			if m.Model == model {
				return true
			}
		}
	}
	return false
}

// version tells one version of a model in one link.
func (c *chain) version(model string, r delivery.Release, who string, accepted bool) {
	l := Link{What: "version", ID: at(model, r.Version), Text: who, Inputs: inputs(r.Spec, r.Bundle)}
	if !accepted {
		l.Text += "; not accepted"
	}
	if s, ok := c.statement(r); ok {
		for _, m := range s.File.Measured {
			line := fmt.Sprintf("gate %s: mAP %.4f on %d images", m.Gate, m.Metrics["mAP"].Value, m.Images)
			if b := m.Baseline; b != nil {
				line += fmt.Sprintf("; version %d: %.4f", b.Version, b.Metrics["mAP"])
			}
			l.Lines = append(l.Lines, line)
		}
	}
	c.add(l)
}

// device explains a device: what it runs, who told it to, and how that came to
// be.
func (f Facts) device(id string) (Chain, error) {
	c := &chain{Facts: f, Chain: Chain{Kind: Device, ID: id, Title: id}}
	bundles := map[delivery.Digest]bool{}
	for _, d := range f.Devices {
		if d.Report.Device != id {
			continue
		}
		c.add(c.standing(d))
		if doc, ok := f.Published[d.Report.Ring]; ok {
			c.desired(d, doc)
		}
		if b := d.Report.Bundle; b != "" && !bundles[b] {
			bundles[b] = true
			c.bundleOnDevice(b)
		}
	}
	if len(c.Links) == 0 {
		return Chain{}, Unknown{Device, id, "aob status lists the devices that have reported"}
	}
	return c.Chain, nil
}

// desired tells what a device was told to run.
func (c *chain) desired(d delivery.Device, doc delivery.Desired) {
	told, share := doc.Release, "the wave"
	switch {
	case doc.InWave(d.Report.Device):
		if doc.Share >= 1 {
			share = "every device"
		}
	case doc.Previous != nil:
		told, share = *doc.Previous, "devices outside the wave"
	default:
		c.add(Link{What: "desired", ID: doc.Ring,
			Text: fmt.Sprintf("document %d tells devices outside the wave nothing; they keep what they run",
				doc.Version)})
		return
	}
	l := Link{What: "desired", ID: doc.Ring, Text: fmt.Sprintf("document %d says version %d of %s for %s", doc.Version,
		told.Version, doc.Model, share), Inputs: inputs(told.Bundle)}
	if d.Report.Desired != doc.Version {
		l.Text += fmt.Sprintf("; the device acts on document %d", d.Report.Desired)
	}
	c.add(l)
}

// bundleOnDevice tells how the bundle that a device runs came to be.
func (c *chain) bundleOnDevice(bundle delivery.Digest) {
	found := false
	for _, model := range c.models() {
		list := c.Acceptances[model]
		for i := len(list) - 1; i >= 0; i-- {
			if a := list[i]; a.Bundle == bundle {
				if !found {
					c.Title = fmt.Sprintf("%s runs %s version %d", c.ID, model, a.Version)
				}
				found = true
				c.whole(model, delivery.Release{Name: model, Version: a.Version, Bundle: bundle, Spec: a.Spec})
				break
			}
		}
	}
	if !found {
		c.bundle(bundle)
		c.add(Link{What: "acceptance", Text: fmt.Sprintf("%s never accepted this bundle", c.Branch)})
	}
}
