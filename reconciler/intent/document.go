package intent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	// MaxFileSize is the size of the largest file that is read.
	MaxFileSize = 64 << 10

	maxDepth      = 12  // of maps and lists in each other; the types need 5
	maxComplaints = 100 // about one file
)

const tooDeep = "has more maps and lists inside each other than AOB reads; flatten it"

// A document is one file while it is checked: its nodes, the places of its values, and the complaints.
type document struct {
	file    string
	options Options
	top     *yaml.Node      // nil where the file cannot be read as YAML
	spots   map[string]spot // by path
	list    []delivery.Complaint
	more    int // complaints beyond maxComplaints
	lines   int // of the file; the YAML library places some errors after the last
}

// A spot is a value with its key, which is nil in a list.
type spot struct{ key, value *yaml.Node }

// A place is a line and a column, both from 1.
type place struct{ line, column int }

func placeOf(n *yaml.Node) place { return place{n.Line, n.Column} }

// fault adds a complaint about a place.
func (d *document) fault(at place, path, format string, args ...any) {
	if d.full() {
		d.more++
		return
	}
	if d.lines > 0 && at.line > d.lines {
		at = place{d.lines, 1}
	}
	d.list = append(d.list, delivery.Complaint{File: d.file, Line: at.line, Column: at.column, Path: path,
		Text: fmt.Sprintf(format, args...)})
}

// refuse adds a complaint about the whole file, and returns false.
func (d *document) refuse(at place, format string, args ...any) bool {
	d.fault(at, "", format, args...)
	return false
}

// full reports whether further complaints are only counted.
func (d *document) full() bool { return len(d.list) >= maxComplaints }

// complain adds a complaint about the value at a path. If there is no such value, the place is that of what it is
// missing in.
func (d *document) complain(path, format string, args ...any) {
	d.fault(d.place(path), path, format, args...)
}

func (d *document) place(path string) place {
	if s, ok := d.spots[path]; ok {
		return placeOf(s.value)
	}
	for path != "" {
		path = parent(path)
		if s, ok := d.spots[path]; ok {
			if s.key != nil {
				return placeOf(s.key)
			}
			return placeOf(s.value)
		}
	}
	if d.top != nil {
		return placeOf(d.top)
	}
	return place{1, 1}
}

func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// has reports whether the file has the value, not as a default.
func (d *document) has(path string) bool {
	_, ok := d.spots[path]
	return ok
}

// valid reports whether there is no complaint about the values at the paths, those around them and those inside. Rules
// between fields are checked only for valid ones, and not if there are too many complaints.
func (d *document) valid(paths ...string) bool {
	return d.more == 0 && !slices.ContainsFunc(d.list, func(c delivery.Complaint) bool {
		return slices.ContainsFunc(paths, func(p string) bool {
			return within(c.Path, p) || c.Path != "" && within(p, c.Path)
		})
	})
}

func within(path, top string) bool {
	rest, ok := strings.CutPrefix(path, top)
	return ok && (rest == "" || top == "" || rest[0] == '.' || rest[0] == '[')
}

// complaints returns the complaints about the file, sorted.
func (d *document) complaints() []delivery.Complaint {
	delivery.SortComplaints(d.list)
	if d.more > 0 {
		return append(d.list, delivery.Complaint{File: d.file,
			Text: fmt.Sprintf("%d more complaints about this file are not shown", d.more)})
	}
	return d.list
}

// read parses YAML and refuses what no file needs. It reports whether there is a map to decode.
func (d *document) read(data []byte) bool {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		return d.refuse(place{1, 1}, "starts with a byte order mark; save it as UTF-8 without one")
	case bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")):
		return d.refuse(place{1, 1}, "is UTF-16; save it as UTF-8")
	case bytes.HasPrefix(data, []byte("version https://git-lfs.github.com/spec/")):
		return d.refuse(place{}, "is a Git LFS pointer, which AOB does not follow; take the file out of LFS: git lfs "+
			"migrate export --include=%q --everything", d.file)
	case !utf8.Valid(data):
		return d.refuse(invalidAt(data), "is not UTF-8; save it as UTF-8")
	case len(bytes.TrimSpace(data)) == 0:
		return d.refuse(place{}, "is empty; write the file, or remove it")
	}
	d.lines = countLines(data)
	nodes, err := parseYAML(data)
	switch {
	case err != nil:
		at, text := syntax(data, err)
		return d.refuse(at, "%s", text)
	case len(nodes) == 0 || isNull(nodes[0]):
		return d.refuse(place{}, "is empty; write the file, or remove it")
	case len(nodes) > 1:
		return d.refuse(placeOf(nodes[1]),
			"a second YAML document starts here; want one document in a file, so remove ---")
	case nodes[0].Kind != yaml.MappingNode:
		return d.refuse(placeOf(nodes[0]), "want keys and values, as in kind: Model, got %s", describe(nodes[0]))
	}
	if !d.simple(nodes[0], "", 0) {
		return false
	}
	d.top = nodes[0]
	d.spots = map[string]spot{"": {value: d.top}}
	return true
}

// simple refuses aliases, anchors, tags, merge keys and deep nesting.
func (d *document) simple(n *yaml.Node, path string, depth int) bool {
	if depth > maxDepth {
		d.fault(placeOf(n), "", "%s", tooDeep)
		return false
	}
	ok := true
	refuse := func(format string, args ...any) {
		d.fault(placeOf(n), path, format, args...)
		ok = false
	}
	if n.Anchor != "" {
		refuse("anchors (&%s) are not supported; write the value where it is needed", clip(n.Anchor))
	}
	switch {
	case n.Kind == yaml.AliasNode:
		refuse("aliases (*%s) are not supported; write the value itself", clip(n.Value))
		return false // the value behind it is checked at its own place
	case n.Style&yaml.TaggedStyle != 0:
		refuse("tags (%s) are not supported; remove the tag", clip(n.Tag))
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Tag == "!!merge" {
			d.fault(placeOf(c), path, "merge keys (<<) are not supported; write the values themselves")
			ok = false
		}
		at := path
		switch {
		case n.Kind == yaml.SequenceNode:
			at = item(path, i)
		case i%2 == 1:
			at = member(path, n.Content[i-1].Value)
		}
		ok = d.simple(c, at, depth+1) && ok
	}
	return ok
}

// member returns the path of a key in a map.
func member(path, key string) string {
	if !plainKey(key) {
		return path + "[" + quote(key) + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// plainKey reports whether a key needs no quotes in a path.
func plainKey(key string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./"
	return key != "" && len(key) <= 64 && strings.Trim(key, letters) == ""
}

// item returns the path of an entry in a list.
func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// parseYAML returns the top nodes of the first two documents. The library panics on some broken input, which is
// returned as an error.
func parseYAML(data []byte) (nodes []*yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			nodes, err = nil, errors.New("cannot be read as YAML")
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for len(nodes) < 2 {
		var doc yaml.Node
		switch err := dec.Decode(&doc); {
		case err == io.EOF:
			return nodes, nil
		case err != nil:
			return nil, err
		}
		nodes = append(nodes, doc.Content...)
	}
	return nodes, nil
}

var yamlError = regexp.MustCompile(`^(?:yaml: )*(?:line ([0-9]+): )?([\s\S]*)$`)

// countLines counts lines by the rules of YAML 1.1.
func countLines(data []byte) int {
	n := 1
	var before rune
	for _, r := range string(data) {
		switch r {
		case '\n':
			if before != '\r' {
				n++
			}
		case '\r', '\u0085', '\u2028', '\u2029':
			n++
		}
		before = r
	}
	return n
}

// syntax turns an error of the YAML library, which has at most a line, into a place and a text.
func syntax(data []byte, err error) (place, string) {
	m := yamlError.FindStringSubmatch(err.Error())
	at, text := place{1, 1}, m[2]
	if strings.HasPrefix(text, "exceeded max depth") {
		return at, tooDeep
	}
	if n, err := strconv.Atoi(m[1]); err == nil {
		if strings.HasPrefix(text, "did not find expected") {
			n++ // the library counts these lines from 0
		}
		at.line = n
	}
	if strings.Contains(text, "cannot start any token") || strings.Contains(text, "tab character") {
		// The library names the line where the value began.
		for i, line := range bytes.Split(data, []byte("\n")) {
			if indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]; bytes.ContainsRune(indent, '\t') {
				return place{i + 1, 1 + bytes.IndexByte(indent, '\t')},
					"YAML does not allow tabs for indentation; use spaces"
			}
		}
	}
	return at, "is not YAML: " + clip(text)
}

// invalidAt finds the first byte that is not UTF-8.
func invalidAt(data []byte) place {
	at := place{1, 1}
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && n == 1:
			return at
		case r == '\n':
			at.line, at.column = at.line+1, 1
		default:
			at.column++
		}
		data = data[n:]
	}
	return at
}
