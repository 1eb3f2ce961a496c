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
	}
	j.cycles()
	delivery.SortComplaints(j.files)
	delivery.SortComplaints(j.list)
	return j.intent, append(j.files, j.list...)
}

type joiner struct {
	intent delivery.Intent
	named  map[string]map[string]*Doc // by kind and name, sound or not
	files  []delivery.Complaint       // about files by themselves
	list   []delivery.Complaint       // about what is between them
	strays map[string]string          // by kind and name: a file that is not read for its place
	sorted map[string][]string        // by kind, made when first needed
}

func (j *joiner) add(doc *Doc) {
	j.files = append(j.files, doc.complaints...)
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
	switch v := doc.value.(type) {
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
	j.list = append(j.list, delivery.Complaint{File: doc.file, Line: r.line, Column: r.column, Path: r.path, Text: fmt.Sprintf(format, args...)})
}

// unknown says that there is no file of a kind and a name.
func (j *joiner) unknown(kind, name string) string {
	word := strings.ToLower(kind)
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
		j.complain(doc, ref{}, "%s; remove this file with its model, or bring models/%s.yaml back", j.unknown("Model", doc.name), doc.name)
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
	for _, name := range slices.Sorted(maps.Keys(j.named["Fleet"])) {
		way := []string{name}
		for next := name; ; {
			next = j.named["Fleet"][next].target(refAfter)
			if next == name {
				doc := j.named["Fleet"][name]
				for _, r := range doc.refs {
					if r.role == refAfter {
						j.complain(doc, r, "waits for itself: %s; want an order without a circle", strings.Join(append(way, name), " -> "))
					}
				}
				break
			}
			if j.named["Fleet"][next] == nil || next < name || slices.Contains(way, next) {
				break
			}
			way = append(way, next)
		}
	}
}
