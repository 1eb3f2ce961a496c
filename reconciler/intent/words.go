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
)

// quote shows text of a file in a complaint: on one line, and not all of a
// megabyte.
func quote(s string) string { return strconv.Quote(clip(s)) }

func clip(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	n := 0
	for i := range s {
		if n == most {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// got describes a value for the end of a complaint.
func got(n *yaml.Node) string {
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
			return quote(n.Value) // a text, or what somebody's own tag stands before: it may have lines
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

// or joins words as in "a, b or c".
func or(words []string) string { return list(words, " or ") }

// and joins words as in "a, b and c".
func and(words []string) string { return list(words, " and ") }

func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + last + words[len(words)-1]
}

// some lists names, and how many there are beyond the first few.
func some(names []string) string {
	const most = 12
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// unknown says that a word is none of the known ones, and which it may be.
func unknown(what, word string, known []string) string {
	return "unknown " + what + " " + quote(word) + "; " + instead(word, known)
}

// instead says what an unknown word may be, and what is known.
func instead(word string, known []string) string {
	if len(known) == 0 {
		return "there is none"
	}
	if near := nearest(word, known); near != "" {
		return "did you mean " + near + "? known: " + some(known)
	}
	return "known: " + some(known)
}

// nearest returns the known word that is a typing mistake away, or "".
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
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance counts insertions, deletions, changes and swaps of neighbours.
func distance(a, b string) int {
	s, t := []rune(a), []rune(b)
	var before []int
	row := make([]int, len(t)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(s); i++ {
		next := make([]int, len(t)+1)
		next[0] = i
		for j := 1; j <= len(t); j++ {
			cost := 1
			if s[i-1] == t[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(t)]
}

// sentence turns a doc tag's first sentence into the end of another.
func sentence(doc string) string {
	doc, _, _ = strings.Cut(doc, ". ")
	doc = strings.TrimSuffix(doc, ".")
	if len(doc) > 1 && doc[1] >= 'a' && doc[1] <= 'z' || strings.HasPrefix(doc, "A ") {
		doc = strings.ToLower(doc[:1]) + doc[1:]
	}
	return doc
}

// matches reports whether a word is one of the patterns, in which * stands for
// any text without a slash.
func matches(word string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, word)
		return ok && err == nil
	})
}
