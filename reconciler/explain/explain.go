// Package explain tells how things came to be: why a pull request is green or
// red, what a commit on main released, which versions a model has had, and why
// a device runs what it runs.
//
// [Facts] is what is known at one moment. [Facts.Explain] answers with a
// [Chain]: links in order, from what a person asked for to the devices that run
// it, each naming what it is about by digest and the digests that it was made
// from. The same facts give the same chain.
//
//	commit      content     data        run         bundle
//	scores      verdict     release     acceptance  fleet     device
//
// A chain prints itself for people, with digests cut short; its JSON has them
// in full. All text in a chain that people or devices wrote is printed without
// control characters.
//
// The package is pure: no clock, file, logger or context.
package explain

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Kind is what can be explained.
type Kind string

// The kinds, with what names one.
const (
	PR     Kind = "pr"     // its number
	Commit Kind = "commit" // its hash, or at least the first four digits of it
	Model  Kind = "model"  // its name
	Device Kind = "device" // its id
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{PR, Commit, Model, Device} }

// A Chain is how one thing came to be.
type Chain struct {
	Kind  Kind   `json:"kind"`
	ID    string `json:"id"`
	Title string `json:"title"`
	Links []Link `json:"links"`
}

// A Link is one step of a chain.
type Link struct {
	What   string            `json:"what"`             // as commit, content, bundle; see the package comment
	ID     string            `json:"id,omitempty"`     // a digest, a commit, a name
	Text   string            `json:"text"`             // one sentence
	Lines  []string          `json:"lines,omitempty"`  // details, as one check of a gate
	Inputs []delivery.Digest `json:"inputs,omitempty"` // what it was made from
	At     time.Time         `json:"at,omitzero"`      // when, where that is known
}

// Unknown is the error for something that nothing is known of.
type Unknown struct {
	Kind Kind
	ID   string
	Do   string // what may help
}

func (u Unknown) Error() string {
	return fmt.Sprintf("nothing is known of %s %s", u.Kind, delivery.Terminal(u.ID))
}

// Hint returns what may help.
func (u Unknown) Hint() string { return u.Do }

// String prints the chain for people, 80 columns wide.
func (c Chain) String() string { return c.Format(80) }

// Format prints the chain with lines of at most width columns, but for words
// that are longer.
func (c Chain) Format(width int) string {
	const what, id = 12, 14
	width = max(width, 60)
	var b strings.Builder
	b.WriteString(wrap(delivery.Terminal(c.Title), "", width) + "\n")
	indent := strings.Repeat(" ", what+id)
	for _, l := range c.Links {
		name := ShortID(delivery.Terminal(l.ID))
		fmt.Fprintf(&b, "\n%-*s", what, delivery.Terminal(l.What))
		if n := utf8.RuneCountInString(name); n < id {
			b.WriteString(name + strings.Repeat(" ", id-n))
		} else {
			b.WriteString(name + "\n" + indent)
		}
		text := delivery.Terminal(l.Text)
		if !l.At.IsZero() {
			text += " (" + l.At.UTC().Format("2006-01-02 15:04 MST") + ")"
		}
		b.WriteString(wrap(text, indent, width) + "\n")
		for _, line := range l.Lines {
			b.WriteString(indent + wrap("- "+delivery.Terminal(line), indent+"  ", width) + "\n")
		}
		if len(l.Inputs) > 0 {
			from := make([]string, len(l.Inputs))
			for i, d := range l.Inputs {
				from[i] = d.Short()
			}
			b.WriteString(indent + wrap("from "+strings.Join(from, ", "), indent+"     ", width) + "\n")
		}
	}
	return b.String()
}

// ShortID cuts a digest or a commit to its first 12 digits, and leaves any
// other name as it is.
func ShortID(id string) string {
	if d, err := delivery.ParseDigest(id); err == nil {
		return d.Short()
	}
	if isHash(id) && len(id) >= 40 {
		return id[:12]
	}
	return id
}

func isHash(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}

// wrap breaks text between words so that indent and line fit into width. The
// first line is not indented.
func wrap(text, indent string, width int) string {
	var b strings.Builder
	room := width - utf8.RuneCountInString(indent)
	column := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
		case column+1+n > room:
			b.WriteString("\n" + indent)
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
