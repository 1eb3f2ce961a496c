package delivery

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ClassPattern matches the names of classes, in the syntax that Go and JSON Schema have in common. The one rule for
// them everywhere: visible characters, with plain spaces (U+0020) between them, and single joiners (U+200C, U+200D),
// which are part of the spelling of Persian, of Indian languages and of emoji. Their number is at most [MaxClass].
const ClassPattern = `^` + visible + `(?: *` + visible + `|[` + joiners + `]` + visible + `)*$`

const (
	visible = `[\p{L}\p{M}\p{N}\p{P}\p{S}]`
	joiners = "\u200c\u200d"
)

// MaxClass is the largest number of characters in the name of a class.
const MaxClass = 100

// WantClass says what the name of a class is.
const WantClass = "the name of a class: at most 100 visible characters, with plain spaces (U+0020) or single joiners " +
	"(U+200C, U+200D) only between them"

var classPattern = regexp.MustCompile(ClassPattern)

// CheckClass returns an error if a text cannot be the name of a class.
func CheckClass(name string) error {
	if !utf8.ValidString(name) || utf8.RuneCountInString(name) > MaxClass ||
		!classPattern.MatchString(name) {
		return fmt.Errorf("want %s, got %.400q", WantClass, name)
	}
	return nil
}

// SameButSpaces reports whether two names differ, but only in spaces, in invisible characters, or in upper and lower
// case.
func SameButSpaces(a, b string) bool {
	fold := func(s string) string {
		return strings.ToLower(strings.Map(func(r rune) rune {
			if unicode.IsSpace(r) || hidden(r) || blank(r) {
				return -1
			}
			return r
		}, s))
	}
	return a != b && fold(a) == fold(b)
}

// Typos counts the typing mistakes between two words: insertions, deletions, changes and swaps of neighbours.
func Typos(a, b string) int {
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

// ClassOf makes the name of a class of a dataset's label: the label itself if it can be one, or else the nearest text
// that can.
func ClassOf(label string) string {
	if CheckClass(label) == nil {
		return label
	}
	spaced := strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case hidden(r):
			return -1
		}
		return r
	}, label)
	runes := []rune(strings.Join(strings.Fields(spaced), " "))
	name := strings.TrimSpace(string(runes[:min(len(runes), MaxClass)]))
	if CheckClass(name) != nil {
		return "class"
	}
	return name
}
