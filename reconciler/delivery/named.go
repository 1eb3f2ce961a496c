package delivery

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"unsafe"
)

// Named maps names to values of one kind, as the gates of a tree. It never changes: [Named.With] makes another one that
// shares what stays the same. So a thousand trees that differ from main in one file each take little more memory than
// main alone. The zero value has nothing.
type Named[V any] struct {
	root *root[V]
	own  []own[V] // where it differs from root, by name
	size int

	reads *Reads // notes what is read; nil for nothing
}

// A root is what several Named share.
type root[V any] struct {
	names  []string // sorted
	places map[string]int
	values []V
	keys   map[string][]string // names by the keys of their values, sorted; see [Named.Keyed]
}

// A keyed is a value that is also found by other names than its own.
type keyed interface{ keys() []string }

// An own is a value in place of the root's.
type own[V any] struct {
	name  string
	value *V // nil: there is none. It is the same in all that share it
}

// NamedOf returns the content of a map.
func NamedOf[V any](content map[string]V) Named[V] {
	if content == nil {
		return Named[V]{}
	}
	r := &root[V]{names: slices.Sorted(maps.Keys(content)), places: make(map[string]int, len(content)),
		values: make([]V, len(content))}
	for i, name := range r.names {
		r.places[name], r.values[i] = i, content[name]
		if k, ok := any(r.values[i]).(keyed); ok {
			for _, key := range k.keys() {
				if r.keys == nil {
					r.keys = map[string][]string{}
				}
				r.keys[key] = append(r.keys[key], name)
			}
		}
	}
	return Named[V]{root: r, size: len(content)}
}

// Known reports whether it was made of something, be it an empty map.
func (n Named[V]) Known() bool {
	n.reads.noteAll()
	return n.root != nil
}

// Len returns how many names there are.
func (n Named[V]) Len() int {
	n.reads.noteNames()
	return n.size
}

// Get returns the value of a name.
func (n Named[V]) Get(name string) (value V, ok bool) {
	n.reads.note(name)
	if v := n.at(name); v != nil {
		return *v, true
	}
	return value, false
}

// Of returns the value of a name, or the zero value.
func (n Named[V]) Of(name string) V {
	value, _ := n.Get(name)
	return value
}

// Has reports whether there is a name.
func (n Named[V]) Has(name string) bool {
	n.reads.note(name)
	return n.at(name) != nil
}

// at returns where the value of a name is; nil if there is none. What shares a value has it at the same place.
func (n Named[V]) at(name string) *V {
	if i, changed := n.place(name); changed {
		return n.own[i].value
	}
	if n.root != nil {
		if i, there := n.root.places[name]; there {
			return &n.root.values[i]
		}
	}
	return nil
}

func (n Named[V]) place(name string) (int, bool) {
	if len(n.own) == 0 {
		return 0, false
	}
	return slices.BinarySearchFunc(n.own, name, func(o own[V], name string) int { return cmp.Compare(o.name, name) })
}

// All iterates over the names and values in the order of the names.
func (n Named[V]) All() iter.Seq2[string, V] {
	n.reads.noteAll()
	return func(yield func(string, V) bool) {
		var names []string
		if n.root != nil {
			names = n.root.names
		}
		i, j := 0, 0
		for i < len(names) || j < len(n.own) {
			switch {
			case j == len(n.own) || i < len(names) && names[i] < n.own[j].name:
				if !yield(names[i], n.root.values[i]) {
					return
				}
				i++
			default:
				if i < len(names) && names[i] == n.own[j].name {
					i++
				}
				if o := n.own[j]; o.value != nil && !yield(o.name, *o.value) {
					return
				}
				j++
			}
		}
	}
}

// Equal reports whether both have the same content.
func (n Named[V]) Equal(other Named[V]) bool {
	n, other = n.ReadAll(), other.ReadAll()
	return n.size == other.size && len(n.Changed(other, func(name string) bool { return n.agrees(other, name) })) == 0
}

// Names returns the names, sorted.
func (n Named[V]) Names() []string {
	n = n.ReadNames()
	switch {
	case n.root == nil:
		return nil
	case len(n.own) == 0:
		return slices.Clone(n.root.names)
	}
	names := make([]string, 0, n.size)
	for name := range n.All() {
		names = append(names, name)
	}
	return names
}

// Keyed returns the names of the values with a key, sorted: of gates those that cover a model, and of fleets those that
// run it.
func (n Named[V]) Keyed(key string) []string {
	n.reads.noteKey(key)
	var names []string
	if n.root != nil {
		for _, name := range n.root.keys[key] {
			if _, changed := n.place(name); !changed {
				names = append(names, name)
			}
		}
	}
	shared := len(names)
	for _, o := range n.own {
		if slices.Contains(keysOf(o.value), key) {
			names = append(names, o.name)
		}
	}
	if shared < len(names) {
		slices.Sort(names)
	}
	return slices.Compact(names)
}

// keysOf returns the keys of a value; nil for none.
func keysOf[V any](value *V) []string {
	if value == nil {
		return nil
	}
	if k, ok := any(*value).(keyed); ok {
		return k.keys()
	}
	return nil
}

// A NamedChange is a value to set, or a name to remove.
type NamedChange[V any] struct {
	Name  string
	Value V
	Gone  bool
}

// sharedChangesOf returns how many names may differ from what is shared before a Named gets a root of its own.
func sharedChangesOf[V any](r *root[V]) int {
	if r == nil {
		return 0
	}
	return max(64, len(r.names)/8)
}

// With returns the content with some changes.
func (n Named[V]) With(changes ...NamedChange[V]) Named[V] {
	if n = n.ReadAll(); len(changes) == 0 {
		return n
	}
	if n.root == nil {
		n.root = &root[V]{}
	}
	next := make(map[string]own[V], len(n.own)+len(changes))
	for _, o := range n.own {
		next[o.name] = o
	}
	for _, c := range changes {
		_, inRoot := n.root.places[c.Name]
		before, changed := next[c.Name]
		had := changed && before.value != nil || !changed && inRoot
		switch {
		case had && c.Gone:
			n.size--
		case !had && !c.Gone:
			n.size++
		}
		switch {
		case c.Gone && !inRoot:
			delete(next, c.Name)
		case c.Gone:
			next[c.Name] = own[V]{name: c.Name}
		default:
			next[c.Name] = own[V]{name: c.Name, value: &c.Value}
		}
	}
	n.own = slices.SortedFunc(maps.Values(next), func(a, b own[V]) int { return cmp.Compare(a.name, b.name) })
	if len(n.own) <= sharedChangesOf(n.root) {
		return n
	}
	return NamedOf(maps.Collect(n.All()))
}

// Near returns the content of a map. If it differs little from another one, it shares what is the same. same reports
// whether a name that both have has the same value.
func Near[V any](other Named[V], content map[string]V, same func(name string) bool) Named[V] {
	most := sharedChangesOf(other.root)
	if other.root == nil || len(content) > other.size+most || other.size > len(content)+most {
		return NamedOf(content)
	}
	var changes []NamedChange[V]
	for name, value := range content {
		if !other.Has(name) || !same(name) {
			changes = append(changes, NamedChange[V]{Name: name, Value: value})
		}
	}
	for name := range other.All() {
		if _, there := content[name]; !there {
			changes = append(changes, NamedChange[V]{Name: name, Gone: true})
		}
	}
	if len(changes) > most {
		return NamedOf(content)
	}
	return other.With(changes...)
}

// Same reports whether two are known to have the same content, because one is a copy of the other.
func (n Named[V]) Same(other Named[V]) bool {
	return n.root == other.root && len(n.own) == len(other.own) &&
		unsafe.SliceData(n.own) == unsafe.SliceData(other.own)
}

// Shares reports whether two share what they have in common.
func (n Named[V]) Shares(other Named[V]) bool { return n.root == other.root }

// Changed returns the names at which two differ, sorted: those that only one of them has, and those for which same
// returns false. What they share is the same: same is not asked, so it must compare nothing but the two values.
func (n Named[V]) Changed(other Named[V], same func(name string) bool) []string {
	switch {
	case n.reads != nil && other.reads != nil:
		n.reads.differ, other.reads.differ = true, true
	default:
		n.reads.noteAll()
		other.reads.noteAll()
	}
	n.reads, other.reads = nil, nil
	var changed []string
	note := func(name string) {
		if a, b := n.at(name), other.at(name); a != b && (a == nil || b == nil || !same(name)) {
			changed = append(changed, name)
		}
	}
	if n.root == other.root {
		var names []string
		for _, list := range [][]own[V]{n.own, other.own} {
			for _, o := range list {
				names = append(names, o.name)
			}
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			note(name)
		}
		return changed
	}
	names := slices.Concat(n.Names(), other.Names())
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		note(name)
	}
	return changed
}
