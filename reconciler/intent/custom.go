package intent

import (
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A reader decodes the values of a type that has several forms in YAML.
type reader func(d *document, n *yaml.Node, v reflect.Value, r *rules, path string)

// custom returns the reader of a type, or nil if it needs none.
func custom(t reflect.Type) reader {
	switch t {
	case reflect.TypeFor[delivery.Classes]():
		return readClasses
	case reflect.TypeFor[delivery.Selection]():
		return readSelect
	case reflect.TypeFor[map[string]any]():
		return readArgs
	case reflect.TypeFor[delivery.Dataset]():
		return readDataset
	case reflect.TypeFor[delivery.Threshold]():
		return readThreshold
	}
	return nil
}

// names reads a list of at least one text of a form, such as a class.
func (d *document) names(n *yaml.Node, form, path string) (names []string) {
	r := &rules{nonempty: true, form: forms[form]}
	d.decodeValue(n, reflect.ValueOf(&names).Elem(), r, path, nil)
	return names
}

// readClasses reads [a, b] or {a: [a, a2], b: [b]}.
func readClasses(d *document, n *yaml.Node, v reflect.Value, _ *rules, path string) {
	var list delivery.Classes
	switch n.Kind {
	case yaml.SequenceNode:
		names := d.names(n, "class", path)
		unique(d, names, path)
		for _, name := range names {
			list = append(list, delivery.Class{Name: name, Labels: []string{name}})
		}
	case yaml.MappingNode:
		places := map[string]string{} // of labels
		for key, value := range d.pairs(n, path) {
			at := member(path, key.Value)
			name, _ := d.decodeString(key, &rules{form: forms["class"]}, at)
			labels := d.names(value, "category", at)
			for i, label := range labels {
				if first, twice := places[label]; twice && label != "" {
					d.complain(item(at, i), "is the same as %s; remove one of them", first)
				}
				places[label] = item(at, i)
			}
			slices.Sort(labels) // a set: their order does not make another model
			list = append(list, delivery.Class{Name: name, Labels: labels})
		}
		if len(n.Content) == 0 {
			d.fault(placeOf(n), path, "is empty; add at least one class")
		}
	default:
		d.fault(placeOf(n), path,
			"want a list of classes, as in [cat, dog], or a map to labels, as in {cat: [cat, kitten]}, got %s",
			describe(n))
	}
	v.Set(reflect.ValueOf(list))
}

// readSelect reads all or [a, b].
func readSelect(d *document, n *yaml.Node, v reflect.Value, r *rules, path string) {
	var s delivery.Selection
	form, what := "class", "classes"
	if r.form == forms["name"] {
		form, what = "name", "profiles"
	}
	switch {
	case n.Kind == yaml.SequenceNode:
		s.Names = d.names(n, form, path)
	case n.Kind != yaml.ScalarNode:
		d.fault(placeOf(n), path, "want all or a list of %s, got %s", what, describe(n))
	case n.Value != "all":
		d.fault(placeOf(n), path, "want all or a list of %s, as in [%s], got %s", what, clip(n.Value), describe(n))
	default:
		s.All = true
	}
	v.Set(reflect.ValueOf(s))
}

// readDataset reads {SOURCE: PATH}, and checks that the server has both.
func readDataset(d *document, n *yaml.Node, v reflect.Value, r *rules, path string) {
	if !d.kind(n, yaml.MappingNode, r, path) {
		return
	}
	switch len(n.Content) / 2 {
	case 0:
		d.fault(placeOf(n), path, "is empty; want one source, as in {dir: NAME}")
		return
	case 1:
	default:
		d.fault(placeOf(n), path, "want exactly one source, as in {dir: NAME}, got %d", len(n.Content)/2)
		return
	}
	for key, value := range d.pairs(n, path) {
		at, source := member(path, key.Value), key.Value
		names, known := d.options.Datasets[source]
		if f := forms["name"]; !f.holds(source) {
			d.fault(placeOf(key), at, "want a source that is %s, got %s", f.want, quote(source))
			continue
		}
		if d.options.Datasets != nil && !known {
			d.fault(placeOf(key), at, "%s", unknown("source", source, slices.Sorted(maps.Keys(d.options.Datasets))))
			continue
		}
		ref, ok := d.decodeString(value, &rules{form: forms["dataset"]}, at)
		if name, _, _ := strings.Cut(ref, "/"); ok && names != nil && !slices.Contains(names, name) {
			d.fault(placeOf(value), at, "%s; the server's configuration lists datasets", unknown("dataset", name,
				names))
		}
		v.Set(reflect.ValueOf(delivery.Dataset{Source: source, Path: ref}))
	}
}

const wantThreshold = "want bestF1, a score as in 0.5, {precision: 0.95} or {recall: 0.9}"

// unit is the range of scores and shares.
var unit = rules{lo: &bound{"0", 0}, hi: &bound{"1", 1}}

// readThreshold reads bestF1, a score, {precision: p} or {recall: r}.
func readThreshold(d *document, n *yaml.Node, v reflect.Value, _ *rules, path string) {
	var t delivery.Threshold
	share := func(n *yaml.Node, path string) *float64 {
		f := new(float64)
		d.decodeFloat(n, reflect.ValueOf(f).Elem(), &unit, path)
		return f
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Value == "bestF1":
		t.BestF1 = true
	case n.Kind == yaml.ScalarNode && plain(n) && decimalPattern.MatchString(n.Value):
		t.Score = share(n, path)
	case n.Kind == yaml.MappingNode && len(n.Content) == 2:
		for key, value := range d.pairs(n, path) {
			switch at := member(path, key.Value); key.Value {
			case "precision":
				t.Precision = share(value, at)
			case "recall":
				t.Recall = share(value, at)
			default:
				d.fault(placeOf(key), at, "unknown key; %s", wantThreshold)
			}
		}
	default:
		d.fault(placeOf(n), path, "%s, got %s", wantThreshold, describe(n))
	}
	v.Set(reflect.ValueOf(t))
}

// readArgs reads arguments of a trainer: scalars, lists of scalars, or maps of both.
// Numbers become float64, as in JSON, so that 1 and 1.0 are one value.
func readArgs(d *document, n *yaml.Node, v reflect.Value, r *rules, path string) {
	if !d.kind(n, yaml.MappingNode, r, path) {
		return
	}
	args := make(map[string]any)
	for key, value := range d.pairs(n, path) {
		at := member(path, key.Value)
		if f := forms["argument"]; !f.holds(key.Value) {
			d.fault(placeOf(key), at, "want a key that is %s, got %s", f.want, quote(key.Value))
			continue
		}
		if value.Kind != yaml.MappingNode {
			args[key.Value] = d.listOrScalar(value, at)
			continue
		}
		values := make(map[string]any)
		for k, c := range d.pairs(value, at) {
			values[k.Value] = d.listOrScalar(c, member(at, k.Value))
		}
		args[key.Value] = values
	}
	if len(args) > 0 {
		v.Set(reflect.ValueOf(args))
	}
}

// listOrScalar reads a list of scalars, or one.
func (d *document) listOrScalar(n *yaml.Node, path string) any {
	if n.Kind != yaml.SequenceNode {
		return d.scalar(n, path)
	}
	list := make([]any, len(n.Content))
	for i, c := range n.Content {
		d.spots[item(path, i)] = spot{value: c}
		list[i] = d.scalar(c, item(path, i))
	}
	return list
}

// scalar reads text, a number, true or false.
func (d *document) scalar(n *yaml.Node, path string) any {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.fault(placeOf(n), path, "want text, a number, true or false, got %s in a list or map", describe(n))
	case isNull(n):
		d.fault(placeOf(n), path, "%s", noValue)
	case !plain(n) || n.Tag == "!!str" || n.Tag == "!!timestamp":
		return n.Value
	case n.Value == "true" || n.Value == "false":
		return n.Value == "true"
	case n.Tag == "!!bool":
		d.fault(placeOf(n), path, "want true or false, got %s", quote(n.Value))
	case wholePattern.MatchString(n.Value) || decimalPattern.MatchString(n.Value) && !leadingZero(n.Value):
		f, err := strconv.ParseFloat(n.Value, 64)
		if err == nil && (math.Abs(f) <= maxWhole || !wholePattern.MatchString(n.Value)) && !math.IsInf(f, 0) {
			return f + 0
		}
		d.fault(placeOf(n), path, "want a smaller number, got %s", clip(n.Value))
	default:
		d.fault(placeOf(n), path, "want a number in plain decimal, as in 12, 0.5 or 1e-4, got %s", clip(n.Value))
	}
	return nil
}

// leadingZero reports whether YAML 1.1 would read a number as octal.
func leadingZero(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return len(s) > 1 && s[0] == '0' && s[1] >= '0' && s[1] <= '9'
}
