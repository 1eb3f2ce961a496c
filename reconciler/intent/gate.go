package intent

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// gate checks the rules between a gate's fields.
func (d *document) gate(g *delivery.Gate, doc *Doc) {
	unique(d, g.Owners, "owners")
	unique(d, g.Covers, "covers")
	for i, name := range g.Covers {
		doc.refer(d, refCovers, name, item("covers", i))
	}
	unique(d, g.Classes, "classes")
	unique(d, g.Licence, "licence")
	slices.Sort(g.Licence) // the order in the file does not change the gate
	d.labels(g)
	seen := make(map[string]int)
	for i := range g.Checks {
		path := item("checks", i)
		c := &g.Checks[i]
		if c.MaxDrop != nil && c.Against == "" && !d.has(path+".against") {
			c.Against = "release"
		}
		if !d.valid(path) {
			continue
		}
		d.check(c, path)
		d.ofGate(g, c.Classes.Names, path+".classes")
		d.ofGate(g, c.Except, path+".except")
		if model, _, anchored := strings.Cut(c.Against, "@"); anchored {
			doc.refer(d, refAgainst, model, path+".against")
		}
		key := fmt.Sprintf("%q %v %q %v %q", c.Metric, c.Classes.All, c.Classes.Names, c.MaxDrop != nil, c.Against)
		if !c.Profiles.IsZero() {
			key += fmt.Sprintf(" %v %q", c.Profiles.All, slices.Sorted(slices.Values(c.Profiles.Names)))
		}
		if c.Classes.IsZero() { // without some classes it is another mean
			key += fmt.Sprintf(" %q", slices.Sorted(slices.Values(c.Except)))
		}
		if first, ok := seen[key]; ok && d.valid(path) {
			d.complain(path, "has the same metric, classes and kind of bound as %s; keep one of them",
				item("checks", first))
			continue
		}
		seen[key] = i
	}
}

// ofGate complains about classes of a check that are not classes of the gate.
func (d *document) ofGate(g *delivery.Gate, classes []string, path string) {
	for i, class := range classes {
		if at := item(path, i); d.valid("classes", at) && !slices.Contains(g.Classes, class) {
			d.complain(at, "%s; correct it, or add it to the gate's own classes:", unknown("class", class, g.Classes))
		}
	}
}

// labels checks that each label counts as one class of the gate.
func (d *document) labels(g *delivery.Gate) {
	counts := map[string]string{} // by label: the class
	for _, class := range slices.Sorted(maps.Keys(g.Labels)) {
		at := member("labels", class)
		if !d.valid("classes", at) {
			continue
		}
		if !slices.Contains(g.Classes, class) {
			d.complain(at, "%s is not a class of this gate; add it to classes:, or list it as a label of the class "+
				"that it "+
				"counts as, as in labels: {%s: [%s]}", quote(class), g.Classes[0], class)
			continue
		}
		unique(d, g.Labels[class], at)
		for i, label := range g.Labels[class] {
			other := counts[label]
			if other == "" && label != class && slices.Contains(g.Classes, label) {
				other = label
			}
			if other != "" && other != class {
				d.complain(item(at, i), "%s already counts as class %s; a label counts as one class only", quote(label),
					quote(other))
			}
			counts[label] = class
		}
		slices.Sort(g.Labels[class]) // the order in the file does not change the gate
	}
}

// A checkRule says with which metrics a check has a field.
type checkRule struct {
	field string
	has   func(delivery.Metric) bool // metrics that may have it
	but   string                     // why the others do not
	must  func(delivery.Metric) bool // metrics that need it; nil for none
	add   string                     // what to do where it is missing
}

func ofImages(m delivery.Metric) bool     { return m.Of != delivery.OfModel && m.Of != delivery.OfProfile }
func notOfModel(m delivery.Metric) bool   { return m.Of != delivery.OfModel }
func ofProfile(m delivery.Metric) bool    { return m.Of == delivery.OfProfile }
func ofClass(m delivery.Metric) bool      { return m.Of == delivery.OfClass }
func lessIsBetter(m delivery.Metric) bool { return m.LessIsBetter }
func atThreshold(m delivery.Metric) bool  { return m.AtThreshold }

// checkRules are for fields other than bounds. The JSON Schema has them too.
var checkRules = []checkRule{
	{field: "classes", has: delivery.Metric.ByClass, must: ofClass, but: "which has no value for each class",
		add: "is computed for each class; add classes: all, or a list, as in classes: [person]"},
	{field: "at", has: atThreshold, must: atThreshold, but: "which is not measured at a score threshold",
		add: "is measured at a score threshold; add at: threshold, which is the model's threshold for each class"},
	{field: "confidence", has: ofImages, but: "which is not measured on images"},
	{field: "support", has: ofImages, but: "which has no classes"},
	{field: "unsure", has: notOfModel, but: "which is never unsure"},
	{field: "except", has: ofImages, but: "which has no classes"},
	{field: "profiles", has: ofProfile, must: ofProfile, but: "which is measured on the server alone",
		add: "is measured on hardware; add profiles: all, for those of the fleets that run the model, or a list, as " +
			"in profiles: [orin-nano-fp16]"},
}

// check checks the rules between the fields of one check. Each field by itself is valid.
func (d *document) check(c *delivery.GateCheck, path string) {
	metric := delivery.MetricOfFigure(c.Metric)
	d.bound(c, metric, path)
	for _, r := range checkRules {
		at := path + "." + r.field
		switch {
		case d.has(at) && !r.has(metric):
			text := fmt.Sprintf("does not apply to %s, %s; remove it", c.Metric, r.but)
			if r.field == "classes" && ofImages(metric) {
				text += ", or use " + or(delivery.MetricNames(r.has))
			}
			d.complain(at, "%s", text)
		case !d.has(at) && r.must != nil && r.must(metric):
			text := c.Metric + " " + r.add
			if r.field == "classes" && metric.Mean != "" {
				text += "; the mean over all classes is " + metric.Mean
			}
			d.complain(path, "%s", text)
		}
	}
	if len(c.Except) > 0 && len(c.Classes.Names) > 0 {
		d.complain(path+".except", "does not apply to a list of classes; remove it, or write classes: all")
	}
	if c.Against != "" && c.MaxDrop == nil {
		d.complain(path+".against", "does not apply without maxDrop; remove it, or add maxDrop")
	}
	unique(d, c.Classes.Names, path+".classes")
	unique(d, c.Except, path+".except")
	unique(d, c.Profiles.Names, path+".profiles")
}

// bound checks that a check has one bound, of a kind that the metric has.
func (d *document) bound(c *delivery.GateCheck, metric delivery.Metric, path string) {
	missing := func(key string) bool { return !d.has(path + "." + key) }
	bounds := slices.DeleteFunc([]string{"min", "max", "maxDrop"}, missing)
	want, better := or(metric.Bounds()), "higher"
	if metric.LessIsBetter {
		want, better = "max, as in "+metric.Example(), "lower"
	}
	var err error
	switch {
	case len(bounds) == 0:
		d.complain(path, "has no bound; add %s", want)
	case len(bounds) > 1:
		d.complain(path, "has %s, and a check has one bound; write a check for each", and(bounds))
	case !slices.Contains(metric.Bounds(), bounds[0]):
		d.complain(path+"."+bounds[0], "does not apply to %s, for which %s values are better; use %s", c.Metric, better,
			want)
	case metric.Unit == delivery.UnitBytes:
		_, err = c.Max.Bytes()
	case metric.Unit == delivery.UnitTime:
		_, err = c.Max.Seconds()
	case metric.LessIsBetter:
		_, err = c.Max.Number()
	}
	if err != nil {
		d.complain(path+".max", "%s", err)
	}
}

// Draft reads a gate's file that may lack what aob gate freeze writes: evaluate and classes.
func Draft(f File) (delivery.Gate, []delivery.Complaint) {
	d, doc := &document{file: f.Path}, &Doc{file: f.Path}
	var g delivery.Gate
	if doc.kind, doc.name = d.identify(f); doc.kind == "Gate" && d.open(f) && d.header(doc) {
		d.decode(&g)
		d.gate(&g, doc)
	}
	return g, slices.DeleteFunc(d.complaints(), func(c delivery.Complaint) bool {
		return strings.HasPrefix(c.Path, "evaluate") || c.Path == "classes" && len(g.Classes) == 0
	})
}
