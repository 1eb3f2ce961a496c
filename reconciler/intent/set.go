package intent

// This file changes values in a file as a person would in an editor: comments, order and style of the rest stay.

import (
	"bytes"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An Assignment gives a value to a path, as train.optimizer.lr=2e-4.
type Assignment struct {
	Path  string // keys from the top of the file, with dots
	Value string // as YAML writes it on one line
}

func (a Assignment) String() string { return a.Path + "=" + a.Value }

// MaxVariants is how many variants a grid may have.
const MaxVariants = 256

// Grid parses the changes to try on a model: PATH=VALUE, or PATH=VALUE,VALUE for several values. It returns the
// assignments of each combination, the last path changing fastest. Several values of a key that is a list, as
// train.seeds, become one list.
func Grid(sets []string) ([][]Assignment, error) {
	grid := [][]Assignment{nil}
	seen := map[string]bool{}
	for _, set := range sets {
		path, value, ok := strings.Cut(set, "=")
		if !ok || path == "" || strings.TrimSpace(value) == "" {
			return nil, fmt.Errorf("want PATH=VALUE, as in train.optimizer.lr=1e-4,2e-4, got %q", clip(set))
		}
		if seen[path] {
			return nil, fmt.Errorf("%s is set twice; give all its values at once: %s=a,b", path, path)
		}
		seen[path] = true
		values := splitList(value)
		if slices.Contains(values, "") {
			return nil, fmt.Errorf("%s: a value is empty in %q", path, clip(value))
		}
		for i, v := range values {
			if !isList(path) && slices.Contains(values[:i], v) {
				return nil, fmt.Errorf("%s: %s is given twice", path, clip(v))
			}
		}
		if isList(path) && (len(values) > 1 || !strings.HasPrefix(value, "[")) {
			values = []string{"[" + strings.Join(values, ", ") + "]"}
		}
		if len(grid)*len(values) > MaxVariants {
			return nil, fmt.Errorf("that is more than %d variants; try fewer values at once", MaxVariants)
		}
		var next [][]Assignment
		for _, row := range grid {
			for _, v := range values {
				next = append(next, append(slices.Clip(row), Assignment{path, v}))
			}
		}
		grid = next
	}
	return grid, nil
}

// splitList splits values at commas that are in no bracket and no quotes.
func splitList(s string) []string {
	var out []string
	from := 0
	for i, depth := range unquoted(s) {
		if s[i] == ',' && depth == 0 {
			out = append(out, strings.TrimSpace(s[from:i]))
			from = i + 1
		}
	}
	return append(out, strings.TrimSpace(s[from:]))
}

// unquoted yields the positions in a line of YAML that are not in quotes, each with the depth of brackets after it.
func unquoted(line string) iter.Seq2[int, int] {
	return func(yield func(i, depth int) bool) {
		depth, quote := 0, byte(0)
		for i := range len(line) {
			c := line[i]
			switch {
			case quote != 0:
				if c == quote {
					quote = 0
				}
				continue
			case (c == '"' || c == '\'') && (i == 0 || strings.IndexByte(" ,[{:", line[i-1]) >= 0):
				quote = c
				continue
			case c == '{' || c == '[':
				depth++
			case c == '}' || c == ']':
				depth--
			}
			if !yield(i, depth) {
				return
			}
		}
	}
}

// isList reports whether a path of a model's file holds a list.
func isList(path string) bool {
	t := reflect.TypeFor[delivery.Model]()
	for key := range strings.SplitSeq(path, ".") {
		if t.Kind() != reflect.Struct || isText(t) {
			return false
		}
		f := find(fieldsOf(t), key)
		if f == nil {
			return false
		}
		t = f.typ
	}
	return t.Kind() == reflect.Slice
}

// Set gives values to paths of a file. It returns an error where the text cannot be changed in its place.
func Set(data []byte, assignments []Assignment) ([]byte, error) {
	for _, a := range assignments {
		next, err := set(data, a)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.Path, err)
		}
		data = next
	}
	return data, nil
}

func set(data []byte, a Assignment) ([]byte, error) {
	var value any
	if strings.ContainsAny(a.Value, "\n\r") || yaml.Unmarshal([]byte(a.Value), &value) != nil || value == nil {
		return nil, fmt.Errorf("want a value in YAML on one line, got %q", clip(a.Value))
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("the file is not YAML: %w", err)
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("the file is not a map")
	}
	keys := strings.Split(a.Path, ".")
	at := doc.Content[0]
	text := string(data)
	for i, key := range keys {
		if key == "" {
			return nil, fmt.Errorf("want keys with dots between them, as train.optimizer.lr")
		}
		if at.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("%s is not a map in the file", strings.Join(keys[:i], "."))
		}
		found := valueOf(at, key)
		if found == nil {
			written := a.Value
			for _, deeper := range slices.Backward(keys[i+1:]) {
				written = "{" + deeper + ": " + written + "}"
			}
			last := valueOf(at, belongsBelow[a.Path])
			if last == nil {
				last = at
			}
			text = insert(text, at, last, key+": "+written)
			break
		}
		if i < len(keys)-1 {
			at = found
			continue
		}
		from, to, ok := extent(text, found)
		if !ok {
			return nil, fmt.Errorf("the value has several lines in the file; edit the file")
		}
		text = text[:from] + a.Value + text[to:]
	}
	// Check that this value has changed and nothing else.
	var before, after any
	if yaml.Unmarshal(data, &before) != nil || yaml.Unmarshal([]byte(text), &after) != nil ||
		!reflect.DeepEqual(assigned(before, keys, value), after) {
		return nil, fmt.Errorf("it cannot be changed in its place; edit the file")
	}
	return []byte(text), nil
}

// belongsBelow names, for keys that AOB adds to gates, the key that they are written below.
var belongsBelow = map[string]string{"classes": "evaluate", "labels": "classes"}

// valueOf finds the value of a key in a map; nil where it has none.
func valueOf(m *yaml.Node, key string) (found *yaml.Node) {
	for k := 0; k+1 < len(m.Content); k += 2 {
		if m.Content[k].Value == key {
			found = m.Content[k+1]
		}
	}
	return found
}

// assigned sets a value in a decoded file.
func assigned(v any, keys []string, value any) any {
	if len(keys) == 0 {
		return value
	}
	m, ok := v.(map[string]any)
	if !ok {
		m = map[string]any{}
	}
	m[keys[0]] = assigned(m[keys[0]], keys[1:], value)
	return m
}

// offset is where a node begins. Its column counts characters.
func offset(text string, n *yaml.Node) int {
	lines := strings.SplitAfter(text, "\n")
	before := strings.Join(lines[:min(n.Line-1, len(lines))], "")
	line := []rune(strings.Join(lines[min(n.Line-1, len(lines)):], ""))
	return len(before) + len(string(line[:min(n.Column-1, len(line))]))
}

// extent is the part of a text that a value of one line takes.
func extent(text string, n *yaml.Node) (from, to int, ok bool) {
	from = offset(text, n)
	rest, _, _ := strings.Cut(text[from:], "\n")
	switch {
	case n.Anchor != "" || n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0:
		return 0, 0, false
	case n.Kind == yaml.ScalarNode && n.Style == 0:
		if !strings.HasPrefix(rest, n.Value) {
			return 0, 0, false
		}
		return from, from + len(n.Value), true
	case n.Kind == yaml.ScalarNode && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		for i := 1; i < len(rest); i++ {
			switch {
			case rest[i] == '\\' && rest[0] == '"':
				i++
			case rest[i] == rest[0] && rest[0] == '\'' && i+1 < len(rest) && rest[i+1] == '\'':
				i++
			case rest[i] == rest[0]:
				return from, from + i + 1, true
			}
		}
	case n.Style&yaml.FlowStyle != 0:
		if end, ok := closing(rest); ok {
			return from, from + end, true
		}
	}
	return 0, 0, false
}

// closing finds the end of the bracket that a line begins with.
func closing(line string) (end int, ok bool) {
	for i, depth := range unquoted(line) {
		if depth == 0 {
			return i + 1, true
		}
	}
	return 0, false
}

// insert adds an entry to a map, in the map's own style: below a node of it, or behind its last entry on one line.
func insert(text string, m, below *yaml.Node, entry string) string {
	if m.Style&yaml.FlowStyle != 0 {
		from := offset(text, m)
		line, _, _ := strings.Cut(text[from:], "\n")
		end, ok := closing(line)
		if !ok {
			return text // Set notices
		}
		at := from + end - 1
		inside := strings.TrimRight(text[from+1:at], " ")
		if inside != "" {
			entry = ", " + entry
		}
		at = from + 1 + len(inside)
		return text[:at] + entry + text[at:]
	}
	last := lastLine(below)
	lines := strings.SplitAfter(text, "\n")
	last = min(last, len(lines))
	if n := len(lines[last-1]); n > 0 && lines[last-1][n-1] != '\n' {
		lines[last-1] += "\n"
	}
	indent := strings.Repeat(" ", m.Column-1)
	return strings.Join(slices.Insert(lines, last, indent+entry+"\n"), "")
}

// lastLine is the last line that a node takes.
func lastLine(n *yaml.Node) int {
	last := n.Line
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		last += strings.Count(n.Value, "\n")
	}
	for _, c := range n.Content {
		last = max(last, lastLine(c))
	}
	return last
}

// SetEvaluate writes the eval set into a gate's file.
func SetEvaluate(data []byte, e delivery.EvalSet) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{dataset: {%s: %s}, split: %s", e.Dataset.Source, e.Dataset.Path, e.Split)
	if e.Group != "" {
		fmt.Fprintf(&b, ", group: %s", e.Group)
	}
	if e.Content != "" {
		fmt.Fprintf(&b, ", content: %q", string(e.Content))
	}
	b.WriteString("}")
	return Set(data, []Assignment{{"evaluate", b.String()}})
}

// SetClasses writes the classes and labels into a gate's file. Labels that the file has stay.
func SetClasses(data []byte, classes []string, labels delivery.Labels) ([]byte, error) {
	list := []Assignment{{"classes", delivery.FlowList(classes)}}
	var has map[string]any
	if yaml.Unmarshal(data, &has) == nil && has["labels"] == nil && len(labels) > 0 {
		list = append(list, Assignment{"labels", labels.String()})
	}
	return Set(data, list)
}
