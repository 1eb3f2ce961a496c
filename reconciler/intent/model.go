package intent

import (
	"maps"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/reconciler/delivery"
)

// model checks the rules between a model's fields.
func (d *document) model(m *delivery.Model, doc *Doc) {
	d.was(m, doc)
	t := &m.Train
	d.train(t)
	if !d.has("train.batch.step") {
		t.Batch.Step = t.Batch.Effective
	}
	if d.sound("train.batch") && t.Batch.Step > 0 && t.Batch.Effective%t.Batch.Step != 0 {
		d.complain("train.batch.step", "want a divisor of effective, %d, got %d", t.Batch.Effective, t.Batch.Step)
	}
	if d.sound("train.epochs", "train.optimizer.warmup") && t.Epochs > 0 && t.Optimizer.Warmup > t.Epochs {
		d.complain("train.optimizer.warmup", "want at most the %d epochs, got %d", t.Epochs, t.Optimizer.Warmup)
	}
	if unique(d, t.Seeds, "train.seeds") && len(t.Seeds) > maxSeeds {
		d.complain("train.seeds", "want at most %d, got %d", maxSeeds, len(t.Seeds))
	}
	d.classes(m)
	unique(d, m.Variants, "variants")
}

// was checks the former name.
func (d *document) was(m *delivery.Model, doc *Doc) {
	if at, ok := d.spots["was"]; ok && at.value.Kind == yaml.MappingNode { // as it renamed classes before
		d.list = slices.DeleteFunc(d.list, func(c delivery.Complaint) bool { return within(c.Path, "was") })
		d.complain("was", "is the model's former name, as in was: forms, and renames no classes; remove it, and write "+
			"the old labels where they mean a class: those of the dataset as in classes: {box: [box, crate]}, and "+
			"those of the eval set under labels: in the gate")
	}
	if d.sound("was", "name") && m.RenamedFrom != "" && m.RenamedFrom == m.Name {
		d.complain("was", "is the model's own name; want the one that it had before, or leave it out")
	}
	doc.refer(d, refWas, m.RenamedFrom, "was")
}

// maxSeeds is how many trainings one spec may ask for.
const maxSeeds = 16

// classes checks what is said by class.
func (d *document) classes(m *delivery.Model) {
	if !d.sound("classes") {
		return
	}
	names := m.Classes.Names()
	for _, name := range slices.Sorted(maps.Keys(m.Thresholds)) {
		if at := member("thresholds", name); d.sound(at) && name != delivery.DefaultThreshold &&
			!slices.Contains(names, name) {
			d.complain(at, "%s", unknown("class", name, append(slices.Clone(names), delivery.DefaultThreshold)))
		}
	}
	if d.sound("thresholds") && len(m.Thresholds) > 0 {
		for _, name := range names {
			if _, ok := m.Thresholds.For(name); !ok {
				d.complain("thresholds", "says nothing of class %s; add it, or default: bestF1", quote(name))
				break
			}
		}
	}
}

// unique complains where a list holds a value twice.
func unique[T comparable](d *document, list []T, path string) bool {
	if !d.sound(path) {
		return false
	}
	seen, ok := make(map[T]int), true
	for i, v := range list {
		if first, twice := seen[v]; twice {
			d.complain(item(path, i), "given twice; it is %s already", item(path, first))
			ok = false
			continue
		}
		seen[v] = i
	}
	return ok
}
