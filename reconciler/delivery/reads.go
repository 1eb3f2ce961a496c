package delivery

// This file notes what is read of trees, so that what was found in them stays until one of the things read changes.

import (
	"reflect"
	"slices"
)

// Reads is what was read of a Named.
type Reads struct {
	all    bool // everything
	which  bool // which names there are
	differ bool // at which names it differs from the other tree that is read
	names  map[string]bool
	keys   map[string]bool
}

func (r *Reads) noteAll() {
	if r != nil {
		r.all = true
	}
}

func (r *Reads) noteNames() {
	if r != nil {
		r.which = true
	}
}

func (r *Reads) note(name string) {
	if r != nil && !r.all {
		r.names = with(r.names, name)
	}
}

func (r *Reads) noteKey(key string) {
	if r != nil && !r.all {
		r.keys = with(r.keys, key)
	}
}

func with(set map[string]bool, name string) map[string]bool {
	if set == nil {
		set = map[string]bool{}
	}
	set[name] = true
	return set
}

// same reports whether the changes of a Named are to nothing that was read.
func (r *Reads) same(changes []valueChange) bool {
	return !slices.ContainsFunc(changes, func(c valueChange) bool {
		return r.all || r.which && (c.added || c.removed) || r.names[c.name] ||
			slices.ContainsFunc(c.keys, func(key string) bool { return r.keys[key] })
	})
}

// A valueChange is one value that differs between two Named.
type valueChange struct {
	name           string
	added, removed bool
	keys           []string // of the values before and after
}

// ReadAll notes that everything is read, and returns the same without notes.
func (n Named[V]) ReadAll() Named[V] {
	n.reads.noteAll()
	n.reads = nil
	return n
}

// ReadNames notes that it is read which names there are, and returns the same without notes.
func (n Named[V]) ReadNames() Named[V] {
	n.reads.noteNames()
	n.reads = nil
	return n
}

// watched returns the same, with notes of what is read.
func (n Named[V]) watched(r *Reads) Named[V] {
	n.reads = r
	return n
}

// agrees reports whether two have the same value of a name, or both none.
func (n Named[V]) agrees(other Named[V], name string) bool {
	a, b := n.at(name), other.at(name)
	return a == b || a != nil && b != nil && reflect.DeepEqual(*a, *b)
}

// since returns what differs from an earlier one.
func (n Named[V]) since(before Named[V]) (list []valueChange) {
	n.reads, before.reads = nil, nil
	if n.Same(before) {
		return nil
	}
	for _, name := range before.Changed(n, func(name string) bool { return before.agrees(n, name) }) {
		was, is := before.at(name), n.at(name)
		list = append(list, valueChange{name: name, added: was == nil, removed: is == nil,
			keys: slices.Concat(keysOf(was), keysOf(is))})
	}
	return list
}

// agreeAt reports whether two have the same values at changed names.
func (n Named[V]) agreeAt(other Named[V], changes ...[]valueChange) bool {
	return !slices.ContainsFunc(slices.Concat(changes...), func(c valueChange) bool { return !n.agrees(other, c.name) })
}

// IntentReads is what was read of a tree.
type IntentReads struct{ models, gates, fleets, releases, quarantines, files Reads }

// IntentChanges is what differs between two trees.
type IntentChanges struct {
	models, gates, fleets, releases, quarantines, files []valueChange
	known                                               bool // whether a kind of file is known
}

// Watched returns a tree that notes what is read of it.
func (i Intent) Watched() (Intent, *IntentReads) {
	r := &IntentReads{}
	return Intent{Models: i.Models.watched(&r.models), Gates: i.Gates.watched(&r.gates),
		Fleets: i.Fleets.watched(&r.fleets), Releases: i.Releases.watched(&r.releases),
		Quarantines: i.Quarantines.watched(&r.quarantines), Files: i.Files.watched(&r.files)}, r
}

// Since returns what differs from an earlier tree.
func (i Intent) Since(before Intent) IntentChanges {
	known := func(i Intent) [6]bool {
		return [6]bool{i.Models.root != nil, i.Gates.root != nil, i.Fleets.root != nil, i.Releases.root != nil,
			i.Quarantines.root != nil, i.Files.root != nil}
	}
	return IntentChanges{i.Models.since(before.Models), i.Gates.since(before.Gates), i.Fleets.since(before.Fleets),
		i.Releases.since(before.Releases), i.Quarantines.since(before.Quarantines), i.Files.since(before.Files),
		known(i) != known(before)}
}

// Same reports whether the changes of a tree are to nothing that was read.
func (r *IntentReads) Same(c IntentChanges) bool {
	return !c.known && r.models.same(c.models) && r.gates.same(c.gates) && r.fleets.same(c.fleets) &&
		r.releases.same(c.releases) && r.quarantines.same(c.quarantines) && r.files.same(c.files)
}

// A TreePair is two trees that were compared with each other.
type TreePair struct{ A, B Intent }

// SamePair reports whether two trees differ at the same names as before, of the kinds of which that was read. r is what
// was read of the first tree, and a and b are what has changed in the two.
func (r *IntentReads) SamePair(before, now TreePair, a, b IntentChanges) bool {
	for _, p := range []TreePair{before, now} {
		if r.models.differ && !p.A.Models.agreeAt(p.B.Models, a.models, b.models) ||
			r.gates.differ && !p.A.Gates.agreeAt(p.B.Gates, a.gates, b.gates) ||
			r.fleets.differ && !p.A.Fleets.agreeAt(p.B.Fleets, a.fleets, b.fleets) ||
			r.releases.differ && !p.A.Releases.agreeAt(p.B.Releases, a.releases, b.releases) ||
			r.quarantines.differ && !p.A.Quarantines.agreeAt(p.B.Quarantines, a.quarantines, b.quarantines) ||
			r.files.differ && !p.A.Files.agreeAt(p.B.Files, a.files, b.files) {
			return false
		}
	}
	return true
}
