package intent

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/reconciler/delivery"
)

// quote returns text of a file for a complaint, shortened and on one line.
func quote(s string) string { return strconv.Quote(clip(s)) }

func clip(s string) string { return delivery.Cut(s, 61) }

// describe describes a value for the end of a complaint.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch {
		case isNull(n):
			return "nothing"
		case !plain(n):
			return "the text " + quote(n.Value)
		case n.Tag != "!!int" && n.Tag != "!!float" &&
			n.Tag != "!!bool", strings.ContainsFunc(n.Value, unicode.IsControl):
			return quote(n.Value) // text, or a value with a custom tag: it may have several lines
		}
		return clip(n.Value)
	}
	return "something else"
}

// plain reports whether a scalar is written without quotes or a block.
func plain(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode &&
		n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
}

func isNull(n *yaml.Node) bool { return plain(n) && n.Tag == "!!null" }

// or joins a list as in "a, b or c".
func or(list []string) string { return join(list, " or ") }

// and joins a list as in "a, b and c".
func and(list []string) string { return join(list, " and ") }

func join(list []string, last string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + last + list[len(list)-1]
}

// rangeText describes a range, of which an end may be empty.
func rangeText(low, high string) string {
	switch {
	case low != "" && low == high:
		return low
	case low != "" && high != "":
		return low + " to " + high
	case low != "":
		return "at least " + low
	case high != "":
		return "at most " + high
	}
	return ""
}

// some lists the first names and the number of the others.
func some(names []string) string {
	const most = 12
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// unknown returns a complaint about an unknown name, with the known ones and a similar one.
func unknown(what, name string, known []string) string {
	text := "unknown " + what + " " + quote(name)
	if len(known) == 0 {
		return text + "; none is known"
	}
	if near := nearest(name, known); near != "" {
		return text + "; did you mean " + near + "? known: " + some(known)
	}
	return text + "; known: " + some(known)
}

// nearest returns a known word that differs by a typing mistake, or "".
func nearest(word string, known []string) string {
	if word == "" || len(word) > 64 {
		return ""
	}
	best, least := "", max(1, utf8.RuneCountInString(word)/3)+1
	for _, k := range known {
		if strings.EqualFold(k, word) {
			return k
		}
		if len(k) > 64 {
			continue
		}
		if d := delivery.Typos(strings.ToLower(word), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// sentence returns the first sentence of a description as the end of another sentence.
func sentence(doc string) string {
	doc, _, _ = strings.Cut(doc, ". ")
	doc = strings.TrimSuffix(doc, ".")
	if len(doc) > 1 && doc[1] >= 'a' && doc[1] <= 'z' || strings.HasPrefix(doc, "A ") {
		doc = strings.ToLower(doc[:1]) + doc[1:]
	}
	return doc
}

// matches reports whether a word matches one of the patterns, in which * is any text without a slash.
func matches(word string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, word)
		return ok && err == nil
	})
}
