package words

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
)

// Chain writes the sentences of a chain beside its facts.
func Chain(c explain.Chain) explain.Chain {
	c.Title = Join(c.Facts)
	links := make([]explain.Link, len(c.Links))
	for i, l := range c.Links {
		l.Text, l.Lines = Join(l.Facts), Lines(l.Details)
		if l.Verdict != nil {
			v := WithTexts(*l.Verdict)
			l.Verdict, l.Lines = &v, append(l.Lines, verdictLines(v)...)
		}
		links[i] = l
	}
	c.Links = links
	return c
}

// ChainText writes a chain for a terminal, with digests cut short. Only words that are longer are wider than width.
func ChainText(c explain.Chain, width int) string {
	const what, id = 12, 14
	width = max(width, 60)
	var b strings.Builder
	b.WriteString(wrap(delivery.Terminal(c.Title), "", width) + "\n")
	indent := strings.Repeat(" ", what+id)
	for _, l := range c.Links {
		name := shortID(delivery.Terminal(l.ID))
		fmt.Fprintf(&b, "\n%-*s", what, delivery.Terminal(l.What))
		if n := utf8.RuneCountInString(name); n < id {
			b.WriteString(name + strings.Repeat(" ", id-n))
		} else {
			b.WriteString(name + "\n" + indent)
		}
		text := delivery.Terminal(l.Text)
		if !l.At.IsZero() {
			text += " (" + moment(l.At) + ")"
		}
		b.WriteString(wrap(text, indent, width) + "\n")
		for _, line := range l.Lines {
			b.WriteString(indent + wrap("- "+delivery.Terminal(line), indent+"  ", width) + "\n")
		}
		if len(l.Inputs) > 0 {
			from := strings.Join(delivery.Each(l.Inputs, delivery.Digest.Short), ", ")
			b.WriteString(indent + wrap("from "+from, indent+"     ", width) + "\n")
		}
	}
	return b.String()
}

// shortID cuts a digest or a commit to its first 12 digits, and leaves any other name as it is.
func shortID(id string) string {
	if d, err := delivery.ParseDigest(id); err == nil {
		return d.Short()
	}
	if len(id) >= 40 && strings.Trim(id, "0123456789abcdef") == "" {
		return id[:12]
	}
	return id
}

// wrap breaks text between words so that indent and line fit into width. The first line is not indented.
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
