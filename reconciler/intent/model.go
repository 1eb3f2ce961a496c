package intent

import (
	"maps"
	"slices"
	"time"

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
	if d.valid("train.batch") && t.Batch.Step > 0 && t.Batch.Effective%t.Batch.Step != 0 {
		d.complain("train.batch.step", "want a divisor of effective, %d, got %d", t.Batch.Effective, t.Batch.Step)
	}
	if d.valid("train.epochs", "train.optimizer.warmup") && t.Epochs > 0 && t.Optimizer.Warmup > t.Epochs {
		d.complain("train.optimizer.warmup", "want at most %d, the number of epochs, got %d", t.Epochs,
			t.Optimizer.Warmup)
	}
	if unique(d, t.Seeds, "train.seeds") && len(t.Seeds) > maxSeeds {
		d.complain("train.seeds", "want at most %d, got %d", maxSeeds, len(t.Seeds))
	}
	d.machine(t)
	d.classes(m)
	d.variants(m)
	if t := m.Track.Tracker(); d.options.Trackers != nil && d.valid("track") && t != "" &&
		!slices.Contains(d.options.Trackers, t) {
		d.complain("track", "the server's configuration has no tracker %s", quote(t))
	}
}

// machine checks that an instance is named where one starts, and nowhere else.
func (d *document) machine(t *delivery.Train) {
	if !d.valid("train.machine") {
		return
	}
	m, at := t.Machine, func(key string) string { return member("train.machine", key) }
	if !m.Paid() {
		for _, key := range []string{"instance", "spot", "maxCost"} {
			if d.has(at(key)) {
				d.complain(at(key), "%s is the server's own machine, which costs nothing; remove this, or add "+
					"terraform: %s", m.Terraform, delivery.TrainAWSEC2)
			}
		}
		return
	}
	known := d.options.Instances
	switch {
	case m.Instance == "":
		d.complain(at("instance"), "missing: the type of the instance, as in g5.xlarge")
	case known != nil && !slices.Contains(known, m.Instance) && !d.options.accepted:
		d.complain(at("instance"), "%s; the server's configuration lists them under aws.instances",
			unknown("type of instance", m.Instance, known))
	}
	if time.Duration(m.Limit) < shortest {
		d.complain(at("limit"), "want at least %s, since an instance takes minutes to start, got %s",
			delivery.Duration(shortest), m.Limit)
	}
}

// shortest is the shortest limit of time of a training on an instance.
const shortest = 15 * time.Minute

// variants checks that the trainer can make the variants.
func (d *document) variants(m *delivery.Model) {
	if !unique(d, m.Variants, "variants") || len(m.Variants) == 0 {
		return
	}
	if !slices.Contains(m.Variants, delivery.FP32) {
		d.complain("variants", "want fp32 too: it is what is trained, and the other variants are made of it")
	}
	trainer, ok := d.options.Trainers[m.Train.With]
	if !ok || d.options.accepted {
		return
	}
	for i, v := range m.Variants {
		if v != delivery.FP32 && !slices.Contains(trainer.Variants, v) {
			d.complain(item("variants", i), "want %s: trainer %s cannot make %s",
				or(append([]string{delivery.FP32}, trainer.Variants...)), m.Train.With, v)
		}
	}
}

// was checks the former name.
func (d *document) was(m *delivery.Model, doc *Doc) {
	if at, ok := d.spots["was"]; ok && at.value.Kind == yaml.MappingNode { // it renamed classes in an earlier version
		d.list = slices.DeleteFunc(d.list, func(c delivery.Complaint) bool { return within(c.Path, "was") })
		d.complain("was",
			"want the model's former name, as in was: forms; classes cannot be renamed here, so remove it, "+
				"and list the old names as labels of the class: labels of the dataset as in classes: {box: [box, "+
				"crate]}, "+
				"labels of the eval set under labels: in the gate")
	}
	if d.valid("was", "name") && m.RenamedFrom != "" && m.RenamedFrom == m.Name {
		d.complain("was", "is the model's name now; want the name that it had before, or remove it")
	}
	doc.refer(d, refWas, m.RenamedFrom, "was")
}

// maxSeeds is the highest number of trainings of one spec.
const maxSeeds = 16

// classes checks that thresholds and classes fit together.
func (d *document) classes(m *delivery.Model) {
	if !d.valid("classes") {
		return
	}
	names := m.Classes.Names()
	for _, name := range slices.Sorted(maps.Keys(m.Thresholds)) {
		if at := member("thresholds", name); d.valid(at) && name != delivery.DefaultThreshold &&
			!slices.Contains(names, name) {
			d.complain(at, "%s", unknown("class", name, append(slices.Clone(names), delivery.DefaultThreshold)))
		}
	}
	if d.valid("thresholds") && len(m.Thresholds) > 0 {
		for _, name := range names {
			if _, ok := m.Thresholds.For(name); !ok {
				d.complain("thresholds",
					"has no threshold for class %s; add one, or default: bestF1 for all other classes", quote(name))
				break
			}
		}
	}
}

// unique complains if a list has a value twice. It reports whether the list is valid.
func unique[T comparable](d *document, list []T, path string) bool {
	if !d.valid(path) {
		return false
	}
	places, ok := make(map[T]int), true
	for i, v := range list {
		if first, twice := places[v]; twice {
			d.complain(item(path, i), "is the same as %s; remove one of them", item(path, first))
			ok = false
			continue
		}
		places[v] = i
	}
	return ok
}
