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
	d.labels(g)
	seen := make(map[string]int)
	for i := range g.Checks {
		path := item("checks", i)
		c := &g.Checks[i]
		if c.MaxDrop != nil && c.Against == "" && !d.has(path+".against") {
			c.Against = "release"
		}
		if !d.sound(path) {
			continue
		}
		d.check(c, path)
		d.ofGate(g, c.Classes.Names, path+".classes")
		d.ofGate(g, c.Except, path+".except")
		if model, _, anchored := strings.Cut(c.Against, "@"); anchored {
			doc.refer(d, refAgainst, model, path+".against")
		}
		key := fmt.Sprintf("%s %v %v %s", c.Metric, c.Classes, c.MaxDrop != nil, c.Against)
		if first, ok := seen[key]; ok && d.sound(path) {
			d.complain(path, "bounds what %s bounds; want one check for it", item("checks", first))
			continue
		}
		seen[key] = i
	}
}

// ofGate complains of classes that a check names and the gate does not.
func (d *document) ofGate(g *delivery.Gate, classes []string, path string) {
	for i, class := range classes {
		if at := item(path, i); d.sound("classes", at) && !slices.Contains(g.Classes, class) {
			d.complain(at, "%s; a check names classes of its gate, so add it to classes: at the top",
				unknown("class", class, g.Classes))
		}
	}
}

// labels checks what names mean: each name one class of the gate.
func (d *document) labels(g *delivery.Gate) {
	means := map[string]string{}
	for _, class := range slices.Sorted(maps.Keys(g.Labels)) {
		at := member("labels", class)
		if !d.sound("classes", at) {
			continue
		}
		if !slices.Contains(g.Classes, class) {
			d.complain(at, "%s is no class of this gate; add it to classes:, or write it as a label of the class that "+
				"it means, as in labels: {%s: [%s]}", quote(class), g.Classes[0], class)
			continue
		}
		unique(d, g.Labels[class], at)
		for i, label := range g.Labels[class] {
			other := means[label]
			if other == "" && label != class && slices.Contains(g.Classes, label) {
				other = label
			}
			if other != "" && other != class {
				d.complain(item(at, i), "%s means class %s already; a label means one class", quote(label),
					quote(other))
			}
			means[label] = class
		}
		slices.Sort(g.Labels[class]) // a set: the order in the file does not change the gate
	}
}

// check checks the rules between the fields of one check, whose fields by
// themselves are right.
func (d *document) check(c *delivery.GateCheck, path string) {
	var bounds []string
	for _, key := range []string{"min", "max", "maxDrop"} {
		if d.has(path + "." + key) {
			bounds = append(bounds, key)
		}
	}
	metric := delivery.MetricOfFigure(c.Metric)
	want := metric.Bounds()
	ask := or(want)
	if metric.LessIsBetter {
		ask += ", as in " + metric.Example()
	}
	switch {
	case len(bounds) == 0:
		d.complain(path, "has no bound; want %s", ask)
	case len(bounds) > 1:
		d.complain(path, "want exactly one of min, max and maxDrop, got %s; split it into two checks", and(bounds))
	case !slices.Contains(want, bounds[0]):
		better := "more"
		if metric.LessIsBetter {
			better = "less"
		}
		d.complain(path+"."+bounds[0], "has no meaning for %s, where %s is better; want %s", c.Metric, better, ask)
	case metric.Unit == delivery.UnitBytes:
		if _, err := c.Max.Bytes(); err != nil {
			d.complain(path+".max", "%s", err)
		}
	case metric.LessIsBetter:
		if _, err := c.Max.Number(); err != nil {
			d.complain(path+".max", "%s", err)
		}
	}
	switch {
	case metric.Of == delivery.OfClass && c.Classes.IsZero():
		text := c.Metric + " is a class's own; want classes: all, or a list, as in classes: [person]"
		if metric.Mean != "" {
			text += "; over all classes it is " + metric.Mean
		}
		d.complain(path, "%s", text)
	case !metric.ByClass() && !c.Classes.IsZero():
		d.complain(path+".classes", "has no meaning for %s; want it with %s", c.Metric,
			or(delivery.MetricNames(delivery.Metric.ByClass)))
	}
	if len(c.Except) > 0 && len(c.Classes.Names) > 0 {
		d.complain(path+".except", "has no meaning beside a list of classes; want it with classes: all")
	}
	switch {
	case metric.AtThreshold && c.At == "":
		d.complain(path, "%s depends on a score threshold; want at: threshold, the model's own", c.Metric)
	case !metric.AtThreshold && c.At != "":
		d.complain(path+".at", "has no meaning for %s", c.Metric)
	}
	if c.Against != "" && c.MaxDrop == nil {
		d.complain(path+".against", "has no meaning without maxDrop")
	}
	if metric.Of == delivery.OfModel {
		for _, key := range []string{"confidence", "support", "unsure", "except"} {
			if d.has(path + "." + key) {
				d.complain(path+"."+key,
					"has no meaning for %s, which is never unsure and has no classes; leave it out", c.Metric)
			}
		}
	}
	unique(d, c.Classes.Names, path+".classes")
	unique(d, c.Except, path+".except")
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
