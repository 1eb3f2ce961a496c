package intent

import (
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// model checks the rules between a model's fields.
func (d *document) model(m *delivery.Model) {
	d.dataset(m.Dataset, "dataset")
	t := &m.Train
	if !d.has("train.batch.step") {
		t.Batch.Step = t.Batch.Effective
	}
	if d.sound("train.batch") && t.Batch.Effective%t.Batch.Step != 0 {
		d.complain("train.batch.step", "want a divisor of effective, %d, got %d", t.Batch.Effective, t.Batch.Step)
	}
	if d.sound("train.epochs", "train.optimizer.warmup") && t.Optimizer.Warmup > t.Epochs {
		d.complain("train.optimizer.warmup", "want at most the %d epochs, got %d", t.Epochs, t.Optimizer.Warmup)
	}
	if unique(d, t.Seeds, "train.seeds") && len(t.Seeds) > 1 {
		d.complain("train.seeds", "not yet: several seeds come later; want one, as in [%d]", t.Seeds[0])
	}
	unique(d, m.Variants, "variants")
	d.args(*t)
}

// args checks what the trainer itself defines.
func (d *document) args(t delivery.Train) {
	if d.options.Args == nil || t.With == "" || !d.sound("train.with", "train.args") {
		return
	}
	trainer, _, _ := strings.Cut(t.With, "@")
	for _, p := range d.options.Args(trainer, t) {
		d.complain("train."+p.Path, "%s", p.Text)
	}
}

// dataset checks that a reference has exactly one source, and that the server
// allows it.
func (d *document) dataset(ref delivery.Dataset, path string) {
	if !d.has(path) || !d.sound(path) {
		return
	}
	s := d.spots[path].value
	switch len(s.Content) / 2 {
	case 0:
		d.complain(path, "is empty; want one source, as in {dir: NAME}")
		return
	case 1:
	default:
		d.complain(path, "want exactly one source, got %d", len(s.Content)/2)
		return
	}
	root, _, _ := strings.Cut(ref.Dir, "/")
	if d.options.Roots != nil && root != "" && !slices.Contains(d.options.Roots, root) {
		d.complain(path+".dir", "%s", unknown("dataset", root, d.options.Roots)+", by the server's configuration")
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
