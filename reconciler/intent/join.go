package intent

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Join makes one intent of parsed files, and checks that the names to which files refer exist. It returns the
// complaints of the files, and then its own, each sorted: a mistake in a file is often the reason why another one does
// not find it. A file with complaints is not in the intent, but its name counts as existing.
func Join(docs []*Doc) (delivery.Intent, []delivery.Complaint) {
	return joinNear(docs, delivery.Intent{})
}

// joinNear is [Join] for a tree that shares with another one what is the same in both. Both were parsed by one [Cache].
func joinNear(docs []*Doc, near delivery.Intent) (delivery.Intent, []delivery.Complaint) {
	j := joiner{
		named:  map[string]map[string]*Doc{"Model": {}, "Gate": {}, "Fleet": {}},
		models: map[string]delivery.Model{}, gates: map[string]delivery.Gate{}, fleets: map[string]delivery.Fleet{},
		releases: map[string]delivery.Release{}, quarantines: map[string]delivery.Quarantine{},
		hashes: make(map[string]string, len(docs)), places: make(map[string]string, len(docs)),
	}
	for _, doc := range docs {
		j.add(doc)
	}
	for _, doc := range docs {
		j.check(doc)
		j.classes(doc)
	}
	j.formerNames()
	j.cycles()
	delivery.SortComplaints(j.files)
	delivery.SortComplaints(j.list)
	return j.intent(near), atMost(append(j.files, j.list...), j.more)
}

// MaxComplaints is how many complaints about one tree are kept. A hostile tree could have millions.
const MaxComplaints = 1000

// atMost keeps the first complaints, and adds one that counts the others.
func atMost(list []delivery.Complaint, more int) []delivery.Complaint {
	if n := len(list) - MaxComplaints; n > 0 {
		list, more = slices.Clip(list[:MaxComplaints]), more+n
	}
	if more > 0 {
		list = append(list, delivery.Complaint{Text: fmt.Sprintf("%d more complaints about these files are not shown",
			more)})
	}
	return list
}

type joiner struct {
	models      map[string]delivery.Model
	gates       map[string]delivery.Gate
	fleets      map[string]delivery.Fleet
	releases    map[string]delivery.Release
	quarantines map[string]delivery.Quarantine
	hashes      map[string]string // of files, by path
	places      map[string]string // files, by kind and name

	named   map[string]map[string]*Doc // by kind and name, also with complaints
	files   []delivery.Complaint       // about single files
	list    []delivery.Complaint       // about references between files
	more    int                        // complaints that are only counted
	strays  map[string]string          // by kind and name: a file in the wrong place
	sorted  map[string][]string        // by kind, made when first needed
	renamed map[string]string          // made when first needed, see newNames
	read    int                        // classes that were read for complaints about gates
}

// intent returns what was joined.
func (j *joiner) intent(near delivery.Intent) delivery.Intent {
	same := func(kind string) func(name string) bool {
		return func(name string) bool {
			file := j.places[kind+" "+name]
			return j.hashes[file] != "" && j.hashes[file] == near.Files.Of(file)
		}
	}
	return delivery.Intent{
		Models:      delivery.Near(near.Models, j.models, same("Model")),
		Gates:       delivery.Near(near.Gates, j.gates, same("Gate")),
		Fleets:      delivery.Near(near.Fleets, j.fleets, same("Fleet")),
		Releases:    delivery.Near(near.Releases, j.releases, same("Release")),
		Quarantines: delivery.Near(near.Quarantines, j.quarantines, same("Quarantine")),
		Files: delivery.Near(near.Files, j.hashes, func(file string) bool {
			return j.hashes[file] == near.Files.Of(file)
		}),
	}
}

func (j *joiner) add(doc *Doc) {
	// Complaints beyond the limit are dropped before they are sorted.
	room := max(0, 2*MaxComplaints-len(j.files))
	j.files = append(j.files, doc.complaints[:min(room, len(doc.complaints))]...)
	j.more += max(0, len(doc.complaints)-room)
	if kind, name := stray(doc.file); doc.kind == "" && len(doc.complaints) > 0 && name != "" {
		if j.strays == nil {
			j.strays = map[string]string{}
		}
		j.strays[kind+" "+name] = doc.file
	}
	if doc.hash != "" {
		j.hashes[doc.file] = doc.hash
	}
	if named := j.named[doc.kind]; named != nil && doc.name != "" {
		named[doc.name] = doc
	}
	if doc.Value != nil {
		j.places[doc.kind+" "+doc.name] = doc.file
	}
	switch v := doc.Value.(type) {
	case delivery.Model:
		j.models[doc.name] = v
	case delivery.Gate:
		j.gates[doc.name] = v
	case delivery.Fleet:
		j.fleets[doc.name] = v
	case delivery.Release:
		j.releases[doc.name] = v
	case delivery.Quarantine:
		j.quarantines[doc.name] = v
	}
}

func (j *joiner) complain(doc *Doc, r ref, format string, args ...any) {
	if j.full() {
		j.more++
		return
	}
	j.list = append(j.list, delivery.Complaint{File: doc.file, Line: r.line, Column: r.column, Path: r.path,
		Text: fmt.Sprintf(format, args...)})
}

// full reports whether further complaints are only counted.
func (j *joiner) full() bool { return len(j.list) >= MaxComplaints }

// unknown returns the complaint that there is no file of a kind and a name.
func (j *joiner) unknown(kind, name string) string {
	if j.full() {
		return "" // the complaint is not kept
	}
	what := strings.ToLower(kind)
	if len(j.list) > maxComplaints { // looking for similar names takes too long for so many
		return "unknown " + what + " " + quote(name)
	}
	if file, ok := j.strays[kind+" "+name]; ok {
		return "unknown " + what + " " + quote(name) + "; AOB does not read " + quote(file)
	}
	return unknown(what, name, j.names(kind))
}

// names returns the names of a kind, sorted.
func (j *joiner) names(kind string) []string {
	if j.sorted == nil {
		j.sorted = make(map[string][]string)
	}
	if j.sorted[kind] == nil {
		j.sorted[kind] = slices.Sorted(maps.Keys(j.named[kind]))
	}
	return j.sorted[kind]
}

func (j *joiner) check(doc *Doc) {
	// A quarantine stays without its model: its bundles must not run under another name either.
	if doc.kind == "Release" && doc.name != "" && j.named["Model"][doc.name] == nil {
		j.complain(doc, ref{}, "%s; remove this file too, or restore models/%s.yaml",
			j.unknown("Model", doc.name), doc.name)
	}
	for _, r := range doc.refs {
		switch r.role {
		case refRuns, refAgainst:
			if j.named["Model"][r.name] == nil {
				j.complain(doc, r, "%s", j.unknown("Model", r.name))
			}
		case refCovers:
			j.covers(doc, r)
		case refAfter:
			j.after(doc, r)
		}
	}
}

// covers checks a model that a gate covers. There may be no such model yet: a gate may come before it. But the gates of
// a renamed model cover its new name, and a file in the wrong place is a mistake.
func (j *joiner) covers(doc *Doc, r ref) {
	if j.named["Model"][r.name] != nil {
		return
	}
	if now := j.newNames()[r.name]; now != "" {
		j.complain(doc, r, "model %s is called %s now (was: in models/%s.yaml); write %s here", quote(r.name),
			quote(now),
			now, quote(now))
	} else if j.strays["Model "+r.name] != "" {
		j.complain(doc, r, "%s", j.unknown("Model", r.name))
	}
}

// newNames returns the present names of models by their former names.
func (j *joiner) newNames() map[string]string {
	if j.renamed == nil {
		j.renamed = map[string]string{}
		for _, name := range j.names("Model") {
			if was := j.named["Model"][name].target(refWas); was != "" {
				j.renamed[was] = name
			}
		}
	}
	return j.renamed
}

// formerNames checks that no model has a former name now, and that only one model claims it.
func (j *joiner) formerNames() {
	claimed := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(j.named["Model"])) {
		doc := j.named["Model"][name]
		for _, r := range doc.refs {
			if r.role != refWas || r.name == name { // its own name is a complaint about the file
				continue
			}
			if j.named["Model"][r.name] != nil {
				j.complain(doc, r,
					"models/%s.yaml still exists, so the model was not renamed; remove that file, or was:", r.name)
			}
			if other := claimed[r.name]; other != "" {
				j.complain(doc, r, "%s has the same was:, and a model gets one new name; remove was: in one of them",
					other)
				continue
			}
			claimed[r.name] = doc.file
		}
	}
}

// classes completes the complaint about a gate without classes with the line to add.
func (j *joiner) classes(doc *Doc) {
	for i, c := range j.files {
		if doc.kind != "Gate" || c.File != doc.file || c.Path != "classes" || !strings.HasPrefix(c.Text, "missing") {
			continue
		}
		text := "missing; a gate lists the classes that it measures"
		shared, labels, all := j.shared(doc)
		switch {
		case len(shared) > 0:
			text += fmt.Sprintf(": add \"classes: %s\"", delivery.FlowList(shared))
			if len(labels) > 0 {
				text += fmt.Sprintf(" and \"labels: {%s}\", as far as the eval set has these labels",
					strings.Join(labels, ", "))
			}
			if !all {
				text += "; its models have other classes too, which another gate can measure"
			}
		case !all:
			text += "; its models have no class in common, so write a gate for each of them"
		default:
			text += `, as in "classes: [pallet, person]"`
		}
		j.files[i].Text = text
	}
}

// shared lists the classes that all models of a gate have, the labels that the models map to them, in YAML, and reports
// whether they have no other classes.
func (j *joiner) shared(doc *Doc) (classes, labels []string, all bool) {
	models := map[string]int{} // by class: how many models have it
	mapped := delivery.Labels{}
	n := 0
	for _, r := range doc.refs {
		m, ok := j.models[r.name]
		if j.read += len(m.Classes); r.role != refCovers || !ok || j.read > maxRead {
			continue
		}
		for _, class := range m.Classes {
			models[class.Name]++
			if !slices.Equal(class.Labels, []string{class.Name}) {
				mapped[class.Name] = class.Labels
			}
		}
		if n++; n == 1 {
			classes = m.Classes.Names()
		}
	}
	classes = slices.DeleteFunc(classes, func(class string) bool { return models[class] < n })
	for _, class := range classes {
		if list := mapped[class]; len(list) > 0 {
			labels = append(labels, delivery.YAMLScalar(class)+": "+delivery.FlowList(list))
		}
	}
	return classes, labels, len(models) == len(classes)
}

// maxRead is how many classes of models are read for complaints about gates. A hostile tree has millions.
const maxRead = 1 << 20

// after checks that a fleet waits for one that exists and runs the same model.
func (j *joiner) after(doc *Doc, r ref) {
	other := j.named["Fleet"][r.name]
	if other == nil {
		j.complain(doc, r, "%s", j.unknown("Fleet", r.name))
		return
	}
	mine, theirs := doc.target(refRuns), other.target(refRuns)
	if mine != "" && theirs != "" && mine != theirs {
		j.complain(doc, r, "fleet %s runs %s; want one that runs %s", r.name, theirs, mine)
	}
}

// target returns the name that a file refers to in a role, or "".
func (doc *Doc) target(role role) string {
	r, _ := delivery.Find(doc.refs, func(r ref) bool { return r.role == role })
	return r.name
}

// cycles complains about fleets that wait for each other, once for each cycle, at the fleet whose name comes first.
func (j *joiner) cycles() {
	const current, done = 1, 2
	state := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(j.named["Fleet"])) {
		var path []string
		next := name
		for ; j.named["Fleet"][next] != nil && state[next] == 0; next = j.named["Fleet"][next].target(refAfter) {
			state[next] = current
			path = append(path, next)
		}
		if state[next] == current {
			j.cycle(path[slices.Index(path, next):])
		}
		for _, n := range path {
			state[n] = done
		}
	}
}

// cycle complains about fleets of which each waits for the next one, and the last for the first.
func (j *joiner) cycle(names []string) {
	first := slices.Index(names, slices.Min(names))
	names = append(slices.Clone(names[first:]), names[:first]...)
	shown := append(slices.Clone(names), names[0])
	if len(shown) > 2*maxShown {
		shown = slices.Concat(shown[:maxShown], []string{"…"}, shown[len(shown)-maxShown:])
	}
	doc := j.named["Fleet"][names[0]]
	for _, r := range doc.refs {
		if r.role == refAfter {
			j.complain(doc, r, "the fleets wait for each other: %s; remove after: from one of them",
				strings.Join(shown, " -> "))
		}
	}
}

// maxShown is how many fleets of a long cycle are shown at each end.
const maxShown = 6
