package intent

import (
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Release returns the release that the file holds, or nil if it holds none.
func (d *Doc) Release() *delivery.Release {
	r, ok := d.value.(delivery.Release)
	if !ok {
		return nil
	}
	return &r
}

// Spec returns the spec digest of the model that the file holds, or "" if it
// holds none.
func (d *Doc) Spec() delivery.Digest {
	m, ok := d.value.(delivery.Model)
	if !ok {
		return ""
	}
	return m.SpecDigest()
}

// Fleet returns the fleet that the file holds; false where it has a complaint, or is
// another file.
func (d *Doc) Fleet() (delivery.Fleet, bool) {
	f, ok := d.value.(delivery.Fleet)
	return f, ok
}

// Quarantine returns the quarantine that the file holds; false where it has a
// complaint, or is another file.
func (d *Doc) Quarantine() (delivery.Quarantine, bool) {
	q, ok := d.value.(delivery.Quarantine)
	return q, ok
}

// Gate returns the gate that a file under gates/ says; false where it has a
// complaint, or is another file.
func (d *Doc) Gate() (delivery.Gate, bool) {
	g, ok := d.value.(delivery.Gate)
	return g, ok
}

// Model returns the model that the file holds; false where it has a complaint, or is
// another file.
func (d *Doc) Model() (delivery.Model, bool) {
	m, ok := d.value.(delivery.Model)
	return m, ok
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
