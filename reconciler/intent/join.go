package intent

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Join makes one intent of files parsed by themselves, and checks what holds
// between them: every name that a file refers to is another file's. It returns
// the complaints of the files, and then its own, each sorted: what is wrong with
// a file is often why another one does not find it. A file with complaints is
// not in the intent; that it exists still counts.
func Join(docs []*Doc) (delivery.Intent, []delivery.Complaint) {
	j := joiner{
		named: map[string]map[string]*Doc{"Model": {}, "Gate": {}, "Fleet": {}},
		intent: delivery.Intent{
			Models: map[string]delivery.Model{}, Gates: map[string]delivery.Gate{}, Fleets: map[string]delivery.Fleet{},
			Releases: map[string]delivery.Release{}, Quarantines: map[string]delivery.Quarantine{},
			Files: make(map[string]string, len(docs)),
		},
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
	return j.intent, atMost(append(j.files, j.list...), j.more)
}

// MaxComplaints is how many complaints about one tree are kept: nobody reads
// more, and a hostile tree could have millions.
const MaxComplaints = 1000

// atMost keeps the first complaints, and says how many there are beyond them.
func atMost(list []delivery.Complaint, more int) []delivery.Complaint {
	if n := len(list) - MaxComplaints; n > 0 {
		list, more = slices.Clip(list[:MaxComplaints]), more+n
	}
	if more > 0 {
		list = append(list, delivery.Complaint{Text: fmt.Sprintf("%d more complaints about these files are left out",
			more)})
	}
	return list
}

type joiner struct {
	intent delivery.Intent
	named  map[string]map[string]*Doc // by kind and name, sound or not
	files  []delivery.Complaint       // about files by themselves
	list   []delivery.Complaint       // about what is between them
	more   int                        // complaints that are only counted
	strays map[string]string          // by kind and name: a file that is not read for its place
	sorted map[string][]string        // by kind, made when first needed
	looked int                        // classes that were looked at for complaints about gates
}

func (j *joiner) add(doc *Doc) {
	// what is cut off is not sorted before; so many files are wrong that it matters to nobody
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
		j.intent.Files[doc.file] = doc.hash
	}
	if named := j.named[doc.kind]; named != nil && doc.name != "" {
		named[doc.name] = doc
	}
	switch v := doc.Value.(type) {
	case delivery.Model:
		j.intent.Models[doc.name] = v
	case delivery.Gate:
		j.intent.Gates[doc.name] = v
	case delivery.Fleet:
		j.intent.Fleets[doc.name] = v
	case delivery.Release:
		j.intent.Releases[doc.name] = v
	case delivery.Quarantine:
		j.intent.Quarantines[doc.name] = v
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

// unknown says that there is no file of a kind and a name.
func (j *joiner) unknown(kind, name string) string {
	if j.full() {
		return "" // it takes a search, and is not kept
	}
	word := strings.ToLower(kind)
	if len(j.list) > maxComplaints { // guesses for all of a thousand names take too long
		return "unknown " + word + " " + quote(name)
	}
	if file, ok := j.strays[kind+" "+name]; ok {
		return "unknown " + word + " " + quote(name) + "; " + quote(file) + " is not read"
	}
	return unknown(word, name, j.names(kind))
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
	// A quarantine outlives its model: its bundles may not run under another name.
	if doc.kind == "Release" && doc.name != "" && j.named["Model"][doc.name] == nil {
		j.complain(doc, ref{}, "%s; remove this file with its model, or bring models/%s.yaml back",
			j.unknown("Model", doc.name), doc.name)
	}
	for _, r := range doc.refs {
		switch r.role {
		case refCovers, refRuns:
			if j.named["Model"][r.name] == nil {
				j.complain(doc, r, "%s", j.unknown("Model", r.name))
			}
		case refAfter:
			j.after(doc, r)
		case refAgainst:
			if j.named["Model"][r.name] == nil {
				j.complain(doc, r, "%s", j.unknown("Model", r.name))
			}
		}
	}
}

// formerNames checks that a former name is no model's name now, and that one model alone claims it.
func (j *joiner) formerNames() {
	claimed := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(j.named["Model"])) {
		doc := j.named["Model"][name]
		for _, r := range doc.refs {
			if r.role != refWas || r.name == name { // of its own name the file's complaints say enough
				continue
			}
			if j.named["Model"][r.name] != nil {
				j.complain(doc, r, "models/%s.yaml is still there, so it was not renamed to this one; remove it, or "+
					"remove was:", r.name)
			}
			if other := claimed[r.name]; other != "" {
				j.complain(doc, r, "%s says so, too, and one model goes on under one name; remove was: in one of them",
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
		text := "missing; a gate names the classes that it holds models to"
		shared, all := j.shared(doc)
		switch {
		case len(shared) > 0:
			text += fmt.Sprintf(": add \"classes: %s\"", delivery.FlowList(shared))
			if !all {
				text += "; its models have other classes, too, which a gate of their own can hold them to"
			}
		case !all:
			text += "; its models have no class in common, so give each of them a gate of its own"
		default:
			text += `, as in "classes: [pallet, person]"`
		}
		j.files[i].Text = text
	}
}

// shared lists the classes that all models have which a gate covers, and reports whether they have no others.
func (j *joiner) shared(doc *Doc) (classes []string, all bool) {
	models := map[string]int{} // by class: how many models have it
	n := 0
	for _, r := range doc.refs {
		m, ok := j.intent.Models[r.name]
		if j.looked += len(m.Classes); r.role != refCovers || !ok || j.looked > maxLooked {
			continue
		}
		for _, class := range m.Classes.Names() {
			models[class]++
		}
		if n++; n == 1 {
			classes = m.Classes.Names()
		}
	}
	classes = slices.DeleteFunc(classes, func(class string) bool { return models[class] < n })
	return classes, len(models) == len(classes)
}

// maxLooked is how many classes of models are looked at for the sake of complaints. A hostile tree has millions.
const maxLooked = 1 << 20

// after checks that a fleet waits for one that exists and runs the same model;
// another model's release would never come.
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
	for _, r := range doc.refs {
		if r.role == role {
			return r.name
		}
	}
	return ""
}

// cycles complains of fleets that wait for themselves, once a cycle, at the one
// whose name comes first.
func (j *joiner) cycles() {
	const seen, done = 1, 2
	state := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(j.named["Fleet"])) {
		var way []string
		next := name
		for ; j.named["Fleet"][next] != nil && state[next] == 0; next = j.named["Fleet"][next].target(refAfter) {
			state[next] = seen
			way = append(way, next)
		}
		if state[next] == seen { // a circle that was not seen before
			j.circle(way[slices.Index(way, next):])
		}
		for _, n := range way {
			state[n] = done
		}
	}
}

// circle complains of fleets that wait for each other, each for the next one.
func (j *joiner) circle(names []string) {
	first := slices.Index(names, slices.Min(names))
	names = append(slices.Clone(names[first:]), names[:first]...)
	shown := append(slices.Clone(names), names[0])
	if len(shown) > 2*maxShown {
		shown = slices.Concat(shown[:maxShown], []string{"…"}, shown[len(shown)-maxShown:])
	}
	doc := j.named["Fleet"][names[0]]
	for _, r := range doc.refs {
		if r.role == refAfter {
			j.complain(doc, r, "waits for itself: %s; want an order without a circle", strings.Join(shown, " -> "))
		}
	}
}

// maxShown is how many fleets of a long circle are shown at each end.
const maxShown = 6
