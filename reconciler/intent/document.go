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
	// MaxFileSize is the size of the largest file that is read; a larger one is a
	// complaint made from its size alone.
	MaxFileSize = 64 << 10

	maxDepth      = 12  // of maps and lists in each other; the schema needs 5
	maxComplaints = 100 // about one file
)

const tooDeep = "is nested far deeper than anything here needs"

// A document is one file while it is checked: its nodes, where each value
// stands, and what is wrong with it.
type document struct {
	file    string
	options Options
	top     *yaml.Node      // nil where the file cannot be read as YAML
	spots   map[string]spot // by path
	list    []delivery.Complaint
	more    int // complaints beyond maxComplaints
	lines   int // of the file; the library places some things after the last
}

// A spot is where a value stands: its key, nil in a list, and the value.
type spot struct{ key, value *yaml.Node }

// A place is a line and a column, both from 1.
type place struct{ line, column int }

func placeOf(n *yaml.Node) place { return place{n.Line, n.Column} }

// fault complains about what stands at a place.
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

// full reports whether further complaints are only counted.
func (d *document) full() bool { return len(d.list) >= maxComplaints }

// complain complains about the value at a path; of a value that is not there, at
// what it belongs to.
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

// has reports whether the file itself gives the value, not a default.
func (d *document) has(path string) bool {
	_, ok := d.spots[path]
	return ok
}

// sound reports whether the value at each path, what it is in and all in it
// came without a complaint. Rules between fields hold only for sound ones, and
// not where complaints were too many to keep.
func (d *document) sound(paths ...string) bool {
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

// complaints returns all that is wrong with the file, sorted.
func (d *document) complaints() []delivery.Complaint {
	delivery.SortComplaints(d.list)
	if d.more > 0 {
		return append(d.list, delivery.Complaint{File: d.file,
			Text: fmt.Sprintf("%d more complaints about this file are left out", d.more)})
	}
	return d.list
}

// read makes nodes of YAML and refuses what intent never needs. It reports
// whether there is a map to decode.
func (d *document) read(data []byte) bool {
	switch {
	case bytes.HasPrefix(data, []byte("\xef\xbb\xbf")):
		d.fault(place{1, 1}, "", "starts with a byte order mark; save it as UTF-8 without one")
		return false
	case bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")):
		d.fault(place{1, 1}, "", "is UTF-16; save it as UTF-8")
		return false
	case bytes.HasPrefix(data, []byte("version https://git-lfs.github.com/spec/")):
		d.fault(place{}, "", "is a Git LFS pointer, and AOB reads the file itself; take it out of LFS: git lfs "+
			"migrate export --include=%q --everything", d.file)
		return false
	case !utf8.Valid(data):
		d.fault(invalidAt(data), "", "is not UTF-8; save it as UTF-8")
		return false
	case len(bytes.TrimSpace(data)) == 0:
		d.fault(place{}, "", "empty file; write it, or remove it")
		return false
	}
	d.lines = countLines(data)
	nodes, err := parseYAML(data)
	switch {
	case err != nil:
		at, text := syntax(data, err)
		d.fault(at, "", "%s", text)
		return false
	case len(nodes) == 0 || isNull(nodes[0]):
		d.fault(place{}, "", "empty file; write it, or remove it")
		return false
	case len(nodes) > 1:
		d.fault(placeOf(nodes[1]), "", "a second document; want one a file, without ---")
		return false
	case nodes[0].Kind != yaml.MappingNode:
		d.fault(placeOf(nodes[0]), "", "want keys and values, as in kind: Model, got %s", got(nodes[0]))
		return false
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
		refuse("anchors (&%s) are not used here; write the value where it is needed", clip(n.Anchor))
	}
	switch {
	case n.Kind == yaml.AliasNode:
		refuse("aliases (*%s) are not used here; write the value out", clip(n.Value))
		return false // what it stands for is checked where it stands
	case n.Style&yaml.TaggedStyle != 0:
		refuse("tags (%s) are not used here; leave it out", clip(n.Tag))
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && c.Tag == "!!merge" {
			d.fault(placeOf(c), path, "merge keys (<<) are not used here; write the values out")
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

// plainKey reports whether a key stands in a path as it is.
func plainKey(key string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./"
	return key != "" && len(key) <= 64 && strings.Trim(key, letters) == ""
}

// item returns the path of an entry in a list.
func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// parseYAML returns the top node of each document, of the first two. The
// library panics on some broken input; here that is an error as any other.
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

// countLines counts lines as YAML 1.1 breaks them.
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

// syntax turns an error of the YAML library into a place and a text. The
// library gives at most a line.
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
				return place{i + 1, 1 + bytes.IndexByte(indent, '\t')}, "tabs do not indent in YAML; use spaces"
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
