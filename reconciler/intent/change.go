package intent

// This file parses a tree that differs in a few files from one that is known, without a look at the others.

import (
	"github.com/autonomos/aob/reconciler/delivery"
)

// A Change is a file that a tree has otherwise than another one, or does not have.
type Change struct {
	File
	Gone bool
}

// ParseChanges is [Parse] for a tree without complaints in which some files are changed. ok is false if only Parse can
// tell what the result is: something may be wrong in it, or files refer to each other in another way.
func (c *Cache) ParseChanges(near delivery.Intent, changes []Change) (in delivery.Intent, ok bool) {
	var n news
	docs := c.docs(there(changes))
	for _, change := range changes {
		var doc *Doc
		if change.Gone {
			d := document{file: change.Path}
			doc = &Doc{file: change.Path}
			if doc.kind, doc.name = d.identify(File{Path: change.Path, Mode: 0o644}); len(d.list) > 0 {
				return in, false
			}
			n.files = append(n.files, delivery.NamedChange[string]{Name: change.Path, Gone: true})
		} else {
			doc, docs = docs[0], docs[1:]
			if len(doc.complaints) > 0 || doc.hash == "" || doc.kind != "" && doc.Value == nil {
				return in, false
			}
			n.files = append(n.files, delivery.NamedChange[string]{Name: change.Path, Value: doc.hash})
		}
		if !n.add(doc, near) {
			return in, false
		}
	}
	in = delivery.Intent{Models: near.Models.With(n.models...), Gates: near.Gates.With(n.gates...),
		Fleets: near.Fleets.With(n.fleets...), Releases: near.Releases.With(n.releases...),
		Quarantines: near.Quarantines.With(n.quarantines...), Files: near.Files.With(n.files...)}
	for _, name := range n.needed {
		if !in.Models.Has(name) {
			return in, false
		}
	}
	return in, true
}

// there returns the files that are not gone.
func there(changes []Change) (files []File) {
	for _, c := range changes {
		if !c.Gone {
			files = append(files, c.File)
		}
	}
	return files
}

// news is what changed files say.
type news struct {
	models      []delivery.NamedChange[delivery.Model]
	gates       []delivery.NamedChange[delivery.Gate]
	fleets      []delivery.NamedChange[delivery.Fleet]
	releases    []delivery.NamedChange[delivery.Release]
	quarantines []delivery.NamedChange[delivery.Quarantine]
	files       []delivery.NamedChange[string]
	needed      []string // models that must exist
}

// add adds a file, or its removal if it has no value. It reports false if it may matter to files that have not changed.
func (n *news) add(doc *Doc, near delivery.Intent) bool {
	if doc.kind == "" {
		return true
	}
	for _, r := range doc.refs {
		switch r.role {
		case refRuns, refAgainst, refCovers: // a gate may cover a model that does not exist: only Parse tells which
			n.needed = append(n.needed, r.name)
		}
	}
	gone := doc.Value == nil
	switch doc.kind {
	case "Model":
		v, _ := doc.Value.(delivery.Model)
		before, had := near.Models.Get(doc.name)
		if gone || doc.target(refWas) != before.RenamedFrom || !had && isFormer(near.Models, doc.name) {
			return false
		}
		n.models = append(n.models, delivery.NamedChange[delivery.Model]{Name: doc.name, Value: v})
	case "Gate":
		v, _ := doc.Value.(delivery.Gate)
		n.gates = append(n.gates, delivery.NamedChange[delivery.Gate]{Name: doc.name, Value: v, Gone: gone})
	case "Fleet":
		v, _ := doc.Value.(delivery.Fleet)
		before, had := near.Fleets.Get(doc.name)
		waits := ""
		if before.After != nil {
			waits = before.After.Fleet
		}
		if gone || doc.target(refAfter) != waits || had && v.Runs != before.Runs {
			return false // fleets that wait for it run the same model
		}
		n.fleets = append(n.fleets, delivery.NamedChange[delivery.Fleet]{Name: doc.name, Value: v})
	case "Release":
		v, _ := doc.Value.(delivery.Release)
		n.releases = append(n.releases, delivery.NamedChange[delivery.Release]{Name: doc.name, Value: v, Gone: gone})
		if !gone {
			n.needed = append(n.needed, doc.name)
		}
	case "Quarantine":
		v, _ := doc.Value.(delivery.Quarantine)
		n.quarantines = append(n.quarantines,
			delivery.NamedChange[delivery.Quarantine]{Name: doc.name, Value: v, Gone: gone})
	default:
		return false
	}
	return true
}

// isFormer reports whether a model had a name before.
func isFormer(models delivery.Named[delivery.Model], name string) bool {
	for _, m := range models.All() {
		if m.RenamedFrom == name {
			return true
		}
	}
	return false
}
